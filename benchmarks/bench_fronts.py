"""How many processes should speak gRPC? A model on all cores of the CPU, by `--fronts`, over the limit.

    python -m benchmarks.bench_fronts --models FOLDER [--model mobilenet] [--fronts 1 --fronts auto …] [--rounds 3]

Each round measures the limit (see `bench_limit`), then starts a server with each number of fronts in turn and loads
it with a closed loop from several processes at once, and with Poisson arrivals at 80 % of the limit. Figures are
medians of the rounds; the generators share the server's cores. The last line is one JSON object.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.bench_gpu import load
from benchmarks.bench_limit import Arrangement, measure, pictures
from benchmarks.bench_service import CLASSIFY, LIMIT_BATCHES, served, write_requests
from benchmarks.conditions import conditions, tell
from benchmarks.processes import cpu_s, cpu_s_of
from taxon.service.machine import available_cores

FRONTS = ("1", "2", "4", "auto")


def one_server(
    models: Path, model: str, fronts: str, way: tuple[str, list[str]], generators: int, seconds: float, limit: float
) -> dict[str, float | None]:
    """Every figure of one server once."""
    with served(models, model, ["--fronts", fronts]) as (pid, address, ready_s):
        load(address, way, generators, 1.0)
        whole, one = cpu_s(pid), cpu_s_of(pid)
        closed = load(address, way, generators, seconds)
        whole, one = cpu_s(pid) - whole, cpu_s_of(pid) - one
        calm = load(address, way, generators, seconds, 0.8 * limit)
    answered = max(1, closed["answered"])
    return {
        "ready_s": round(ready_s, 2),
        "of_limit": round(closed["per_s"] / limit, 3),
        "per_s": closed["per_s"],
        "cpu_ms": round(whole * 1e3 / answered, 3),
        "first_process_cpu_ms": round(one * 1e3 / answered, 3),
        "open80_p99_ms": calm["p99_ms"],
        "open80_of_limit": round(calm["per_s"] / limit, 3),
        "generator_cpu_share": closed["generator_cpu_share"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--fronts", action="append", help="default: 1, 2, 4, auto")
    parser.add_argument("--limit-batch", type=int, action="append", help="batch sizes tried for the limit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    encoded = pictures(None, options.model)
    cores = available_cores()
    generators = max(1, cores // 4)
    alone = [Arrangement(cores, 1, size) for size in options.limit_batch or LIMIT_BATCHES]
    rounds: dict[str, list[dict]] = {fronts: [] for fronts in options.fronts or FRONTS}
    limits = []
    with tempfile.TemporaryDirectory() as folder:
        way = CLASSIFY, write_requests(Path(folder), options.model, encoded)
        for _ in range(options.rounds):
            limits.append(max(measure(options.models, options.model, one, encoded, options.seconds) for one in alone))
            print(f"limit {limits[-1]:.1f}", flush=True)
            for fronts, rows in rounds.items():
                rows.append(
                    one_server(options.models, options.model, fronts, way, generators, options.seconds, limits[-1])
                )
                print(fronts, rows[-1], flush=True)
    report = {
        "benchmark": "fronts",
        "model": options.model,
        "rounds": options.rounds,
        "generators": generators,
        "limit": round(statistics.median(limits), 1),
        "fronts": {
            fronts: {key: statistics.median(row[key] or 0.0 for row in rows) for key in rows[0]}
            for fronts, rows in rounds.items()
        },
        **conditions(),
    }
    tell(report, options.out)


if __name__ == "__main__":
    main()
