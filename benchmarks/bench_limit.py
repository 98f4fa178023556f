"""The limit: the same pictures decoded and run with no server, by the best arrangement of processes and threads.

Decoding is Pillow's, as everybody has it, whatever the bundle's own is: a bundle whose decoding is quicker can pass the
limit.

    python -m benchmarks.bench_limit --models FOLDER --model NAME [--pictures FOLDER] [--rounds 3] [--seconds 3]

The last line is one JSON object: images per second of each arrangement (median of the rounds), and the best.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np

from taxon.bench.made_pictures import photo
from taxon.bundle import store
from taxon.service.machine import available_cores
from taxon.service.runtime.device import CPU
from taxon.service.runtime.session import open_session

PICTURE_COUNT = 40


@dataclass(frozen=True, slots=True)
class Arrangement:
    """So many processes, each decoding and running batches with so many threads."""

    processes: int
    threads: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.processes} processes x {self.threads} threads, batch {self.batch_size}"


def pictures(folder: Path | None, model: str) -> list[bytes]:
    """Encoded pictures: those of a folder, or made ones."""
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return [path.read_bytes() for path in files[:PICTURE_COUNT]]
    made = []
    for seed in range(PICTURE_COUNT):
        file = BytesIO()
        if model == "digits":
            photo(seed, (8, 8)).convert("L").save(file, "PNG")
        else:
            photo(seed).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def work(
    models: Path,
    model: str,
    arrangement: Arrangement,
    encoded: Sequence[bytes],
    begin: Barrier,
    end: Event,
    queue: multiprocessing.Queue,
) -> None:
    """Decodes and runs until told to stop; reports (images, seconds)."""
    bundle = store.read(models, model, 1)
    session = open_session(bundle.folder / "model.onnx", CPU, arrangement.threads, {})
    size = arrangement.batch_size
    os.environ["RESIZE"] = json.dumps(bundle.manifest.pixels.resize)
    from benchmarks.peers.work import decode  # reads what it must do when it is imported

    session.run(np.zeros((size, *bundle.manifest.input.shape), np.uint8))
    cycle = itertools.cycle(encoded)
    begin.wait()
    started, count = time.perf_counter(), 0
    while not end.is_set():
        session.run(np.stack([decode(next(cycle)) for _ in range(size)]))
        count += size
    queue.put(count / (time.perf_counter() - started))


def measure(models: Path, model: str, arrangement: Arrangement, encoded: Sequence[bytes], seconds: float) -> float:
    """Images per second of one arrangement."""
    context = multiprocessing.get_context("spawn")
    begin, end, queue = context.Barrier(arrangement.processes + 1), context.Event(), context.Queue()
    workers = [
        context.Process(target=work, args=(models, model, arrangement, encoded, begin, end, queue))
        for _ in range(arrangement.processes)
    ]
    for worker in workers:
        worker.start()
    begin.wait()
    time.sleep(seconds)
    end.set()
    rates = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def arrangements(cores: int) -> list[Arrangement]:
    """What is worth trying on so many cores."""
    many = [Arrangement(cores, 1, size) for size in (1, 2, 4, 8)]
    return many if cores == 1 else [*many, Arrangement(1, cores, 8)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    tried = arrangements(available_cores())
    rates: dict[str, list[float]] = {str(arrangement): [] for arrangement in tried}
    for _ in range(options.rounds):
        for arrangement in tried:
            rates[str(arrangement)].append(
                measure(options.models, options.model, arrangement, encoded, options.seconds)
            )
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    best = max(medians, key=medians.__getitem__)
    for name, rate in medians.items():
        print(f"{name:40} {rate:8.1f} images/s")
    print(
        json.dumps(
            {
                "benchmark": "limit",
                "model": options.model,
                "mean_bytes": round(statistics.mean(map(len, encoded))),
                "images_per_s": medians,
                "best": best,
                "limit": medians[best],
            }
        )
    )


if __name__ == "__main__":
    main()
