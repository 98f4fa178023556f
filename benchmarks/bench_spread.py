"""What does it cost a server to count how its inputs and answers are spread?

    python -m benchmarks.bench_spread [--out FILE]

CPU time of one input, medians of interleaved rounds: in the front the four measures and their bins, for a photograph of
90 kB whose header says its size late (an EXIF block before it) and 10 or 1,000 labels; in the worker the brightness of
a picture of 224x224 pixels, alone and in a batch. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conditions import conditions
from taxon.bundle.distributions import MEASURES, brightness, distribution
from taxon.service.pipeline import measures
from taxon.service.ranking import Ranking
from taxon.service.scheduling.batching import Scored
from taxon.service.telemetry.spread import Observed
from tests.fakes import toy_bundle
from tests.service.models.known_models import model

ROUNDS, CALLS = 15, 2000


def seconds(call: Callable[[], object], count: int = CALLS) -> float:
    began = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - began) / count


def photograph() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "x" * 5000
    encoded = BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG", quality=80, exif=exif)
    return encoded.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    random, encoded, observed = np.random.default_rng(0), photograph(), Observed()
    known = {measure: distribution(measure, random.random(500) * 300) for measure in MEASURES}
    with tempfile.TemporaryDirectory() as folder:
        known_model = model("m", 1, toy_bundle(Path(folder)).manifest)

    def front(label_count: int) -> Callable[[], object]:
        served = replace(known_model, ranking=Ranking("single_label", None, None, label_count))
        row = random.random(label_count + 1, dtype=np.float32)
        scored = Scored(row, 0.0, 0.0, 0.0, 1, brightness=0.4)
        return lambda: observed.observe("m", 1, known, measures(served, encoded, scored))

    def worker(size: int) -> Callable[[], object]:
        batch = random.integers(0, 256, (size, 224, 224, 3), dtype=np.uint8)
        return lambda: brightness(batch).tolist()

    calls = {"front_10_labels": (front(10), 1), "front_1000_labels": (front(1000), 1)}
    calls |= {f"worker_batch_{size}": (worker(size), size) for size in (1, 8)}
    rounds = [{name: seconds(call) / inputs for name, (call, inputs) in calls.items()} for _ in range(ROUNDS)]
    result = {f"{name}_us": round(statistics.median(one[name] for one in rounds) * 1e6, 2) for name in calls}
    line = json.dumps({"benchmark": "spread", **result, "picture_bytes": len(encoded), "conditions": conditions()})
    if options.out:
        options.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
