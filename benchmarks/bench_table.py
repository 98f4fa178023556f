"""A table of many files beside the limit: `taxon classify --models` without its start, and a few of the same pictures
decoded and run with no files, no journal and no parent process, in turns.

    python -m benchmarks.bench_table --models FOLDER --model NAME --pictures FOLDER [--count 10000] [--rounds 3]

The last line is one JSON object: files per second (median of the rounds), the limit, and the share of it.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bench_limit import Arrangement, measure, pictures
from taxon.service.machine import available_cores
from taxon.table import processes
from taxon.table.files import CHUNK, LeftOut, Source
from taxon.table.journal import Journal


def table_rate(models: Path, model: str, folder: Path, count: int) -> float:
    """Files per second from the first rows to the last."""
    settings = {"models": str(models), "model": model, "max_results": 3, "base": ""}
    chunks = itertools.islice(Source(folder).chunks(LeftOut()), count // CHUNK)
    with tempfile.TemporaryDirectory() as place:
        journal = Journal(Path(place, "journal"))
        journal.resume()
        began, done = 0.0, 0
        for rows in processes.answers(chunks, settings):
            journal.add(rows)
            if began:
                done += len(rows)
            else:
                began = time.perf_counter()
        seconds = time.perf_counter() - began
        journal.close()
    return done / seconds


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
    rates: list[float] = []
    for _ in range(options.rounds):
        for arrangement in tried:
            rate = measure(options.models, options.model, arrangement, encoded, options.seconds)
            limits[str(arrangement)].append(rate)
        rates.append(table_rate(options.models, options.model, options.pictures, options.count))
        print({name: round(values[-1]) for name, values in limits.items()}, round(rates[-1]), flush=True)
    medians = {name: round(statistics.median(values), 1) for name, values in limits.items()}
    limit, rate = max(medians.values()), statistics.median(rates)
    print(
        json.dumps(
            {
                "benchmark": "table",
                "model": options.model,
                "limit": limit,
                "files_per_s": round(rate, 1),
                "share": round(rate / limit, 3),
                "rounds": {
                    **{name: [round(value) for value in values] for name, values in limits.items()},
                    "table": [round(value) for value in rates],
                },
            }
        )
    )


if __name__ == "__main__":
    main()
