"""Do pictures of twelve megapixels among ordinary ones make these wait?

    python -m benchmarks.bench_large_pictures --models FOLDER --model NAME [--pictures FOLDER] [--flags FLAGS]

One server; Poisson arrivals of ordinary pictures at a share of the limit, in turn alone and with large ones beside
them that take a given share of the cores. Medians of the rounds. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.bench_decoding import enlarged
from benchmarks.bench_limit import pictures
from benchmarks.bench_service import best_limit, generator, load, served, write_requests
from benchmarks.conditions import conditions
from taxon.bundle import store
from taxon.bundle.pixels import decode
from taxon.service.machine import available_cores

LARGE_COUNT = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--share", type=float, default=0.4, help="ordinary pictures per second, of the limit")
    parser.add_argument("--large-share", type=float, default=0.2, help="of the cores' time for large pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--flags", default="", help="more flags of the server, in one word")
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    large = [enlarged(Image.open(BytesIO(picture)), 12.0, seed) for seed, picture in enumerate(encoded[:LARGE_COUNT])]
    manifest = store.read(options.models, options.model, store.versions(options.models, options.model)[-1]).manifest
    started = time.perf_counter()
    for picture in large:
        decode(picture, manifest.pixels)
    large_s = (time.perf_counter() - started) / len(large)
    limit = best_limit(options.models, options.model, encoded, options.seconds)
    rate, large_rate = options.share * limit, options.large_share * available_cores() / large_s
    figures: dict[str, list[dict]] = {"alone": [], "beside": [], "large": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "large").mkdir()
        small_bodies = write_requests(Path(folder), options.model, encoded)
        large_bodies = write_requests(Path(folder, "large"), options.model, large)
        with served(options.models, options.model, options.flags.split()) as (_, address, _):
            load(address, small_bodies, seconds=1.0, callers=16)
            for _ in range(options.rounds):
                figures["alone"].append(load(address, small_bodies, seconds=options.seconds, rate=rate))
                with generator(
                    address, large_bodies, seconds=options.seconds, rate=large_rate, deadline_s=5.0
                ) as beside:
                    figures["beside"].append(load(address, small_bodies, seconds=options.seconds, rate=rate))
                    output, _ = beside.communicate()
                figures["large"].append(json.loads(output))
    keys = ("answered_per_s", "p50_ms", "p99_ms", "refused_per_s")
    medians = {
        name: {key: round(statistics.median(run[key] or 0.0 for run in runs), 2) for key in keys}
        for name, runs in figures.items()
    }
    for name, row in medians.items():
        print(f"{name:8} {row}")
    print(
        json.dumps(
            {
                "benchmark": "large pictures",
                "model": options.model,
                "limit": round(limit, 1),
                "large_decode_ms": round(large_s * 1e3, 1),
                "offered_per_s": round(rate, 1),
                "large_offered_per_s": round(large_rate, 2),
                **medians,
                **conditions(),
            }
        )
    )


if __name__ == "__main__":
    main()
