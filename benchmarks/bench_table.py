"""A table of many files beside the limit: `taxon classify --models` without its start, and a few of the same pictures
decoded and run with no files, no journal and no parent process, in turns.

    python -m benchmarks.bench_table --models FOLDER --model NAME --pictures FOLDER [--count 10000] [--rounds 3]

The last line is one JSON object: files per second (median of the rounds), the limit, and the share of it; and the same
by processor time for a file, which other work on the machine disturbs less.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_limit import Arrangement, measure, pictures
from benchmarks.processes import cpu_s_of
from taxon.bundle import store
from taxon.service.machine import available_cores
from taxon.service.runtime.device import CPU
from taxon.service.runtime.session import open_session
from taxon.table import processes
from taxon.table.files import CHUNK, LeftOut, Source
from taxon.table.journal import Journal


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of the table."""

    files_per_s: float
    parent_us: float
    """Of processor time for a file, in this process."""
    workers_us: float


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def table(models: Path, model: str, folder: Path, count: int) -> Measured:
    """From the first rows to the last."""
    settings = {"models": str(models), "model": model, "max_results": 3, "base": ""}
    chunks = itertools.islice(Source(folder).chunks(LeftOut()), count // CHUNK)
    before = children()
    with tempfile.TemporaryDirectory() as place:
        journal = Journal(Path(place, "journal"))
        journal.resume()
        answers = processes.answers(chunks, settings)
        journal.add(next(answers))
        workers = [pid for pid in children() if pid not in before]
        began, parent_s, workers_s, done = time.perf_counter(), time.process_time(), sum(map(cpu_s_of, workers)), 0
        for rows in answers:
            journal.add(rows)
            done += len(rows)
            if done > count - 3 * CHUNK:
                break
        seconds = time.perf_counter() - began
        parent_s, workers_s = time.process_time() - parent_s, sum(map(cpu_s_of, workers)) - workers_s
        answers.close()
        journal.close()
    return Measured(done / seconds, 1e6 * parent_s / done, 1e6 * workers_s / done)


def limit_us(models: Path, model: str, encoded: Sequence[bytes], size: int, seconds: float) -> float:
    """Processor time that a picture takes at the limit, in one process on one thread."""
    bundle = store.read(models, model, 1)
    session = open_session(bundle.folder / "model.onnx", CPU, 1, {})
    os.environ["RESIZE"] = json.dumps(bundle.manifest.pixels.resize)
    from benchmarks.peers.work import decode  # reads what it must do when it is imported

    cycle, count = itertools.cycle(encoded), 0
    session.run(np.stack([decode(next(cycle)) for _ in range(size)]))
    began = time.process_time()
    while time.process_time() - began < seconds:
        session.run(np.stack([decode(next(cycle)) for _ in range(size)]))
        count += size
    return 1e6 * (time.process_time() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    tried = [Arrangement(available_cores(), 1, size) for size in (1, 4, 8)]
    limits: dict[str, list[float]] = {str(arrangement): [] for arrangement in tried}
    cpu_us: dict[int, list[float]] = {1: [], 4: [], 8: []}
    found: list[Measured] = []
    for _ in range(options.rounds):
        for arrangement in tried:
            rate = measure(options.models, options.model, arrangement, encoded, options.seconds)
            limits[str(arrangement)].append(rate)
        for size, values in cpu_us.items():
            values.append(limit_us(options.models, options.model, encoded, size, options.seconds / 3))
        found.append(table(options.models, options.model, options.pictures, options.count))
        print({name: round(values[-1]) for name, values in limits.items()}, found[-1], flush=True)
    medians = {name: round(statistics.median(values), 1) for name, values in limits.items()}
    limit, rate = max(medians.values()), statistics.median(one.files_per_s for one in found)
    least_us = min(statistics.median(values) for values in cpu_us.values())
    parent_us, workers_us = (
        statistics.median(getattr(one, name) for one in found) for name in ("parent_us", "workers_us")
    )
    print(
        json.dumps(
            {
                "benchmark": "table",
                "model": options.model,
                "limit": limit,
                "files_per_s": round(rate, 1),
                "share": round(rate / limit, 3),
                "limit_cpu_us": round(least_us, 1),
                "parent_cpu_us": round(parent_us, 1),
                "workers_cpu_us": round(workers_us, 1),
                "share_by_cpu": round(least_us / (parent_us + workers_us), 3),
                "rounds": {name: [round(value) for value in values] for name, values in limits.items()}
                | {"table": [round(one.files_per_s) for one in found]},
            }
        )
    )


if __name__ == "__main__":
    main()
