"""How many replicas a load and a p99 take: events of one replica, drawn from the times that its batches take.

    python -m benchmarks.simulate_replicas --models FOLDER --model NAME [--fractions 0.5 0.8 0.9] [--seconds 15]
    python -m benchmarks.simulate_replicas --batch-ms 1=7.1 2=12.9 4=24.6 --rate 900 --p99-ms 150 [--workers 2]

The first form measures what a batch of each size takes as it is served (closed loops against servers whose largest
batch it is, so that all that a call costs counts), then offers a server Poisson arrivals at fractions of its best rate,
and puts what is measured beside what is simulated. The second says what so many replicas answer. In both, the last line
is one JSON object.

Simulated: one queue and so many workers, of which each takes its next batch, when it is free, by the service's own rule
(`taxon.service.scheduling.batching`); a batch takes its time, with a spread (lognormal, of a coefficient of variation).
Each of k replicas gets its share of Poisson arrivals: by chance, as from many clients, it is Poisson again; in turns,
as from one client with round robin, it is every k-th. Not simulated: the network, deadlines, refusals, unlike replicas.
"""

import argparse
import heapq
import json
import math
import random
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.bench_limit import pictures
from benchmarks.bench_service import load, served, write_requests
from benchmarks.conditions import conditions
from taxon.service.machine import available_cores
from taxon.service.scheduling.batching import best_bucket

SIZES = (1, 2, 4, 8)
ARRIVALS = 60_000
MOST_REPLICAS = 200
SPREAD = 0.5
"""What fits a measurement best (docs/experiments/serving.md): pictures differ, and processes share cores."""
FULL = 0.97
"""Of the best rate: beyond it a queue has no end within the arrivals that are drawn."""


def arrivals(rate: float, every: int, dice: random.Random) -> Iterator[float]:
    """Seconds at which one replica gets a call: every k-th of Poisson arrivals of all of them."""
    now = 0.0
    for _ in range(ARRIVALS):
        now += dice.gammavariate(every, 1 / rate)
        yield now


def simulate(run_s: Mapping[int, float], workers: int, rate: float, every: int = 1, spread: float = 0.0) -> list[float]:
    """Seconds that the calls of one replica take, ascending.

    Args:
        run_s: Seconds of a batch by its size, ascending, from 1.
        workers: Of the replica.
        rate: Calls per second, of `every` replicas together.
        every: Replicas that get calls in turns; 1: by chance.
        spread: Coefficient of variation of a batch's time.
    """
    dice = random.Random(0)
    sigma = math.sqrt(math.log(1 + spread**2))
    coming = deque(arrivals(rate, every, dice))
    waiting: deque[float] = deque()
    free = [0.0] * workers
    latencies = []
    while coming or waiting:
        now = heapq.heappop(free)
        if not waiting:
            now = max(now, coming[0])
        while coming and coming[0] <= now:
            waiting.append(coming.popleft())
        size = best_bucket(-(-len(waiting) // workers), run_s)
        ends = now + run_s[size] * dice.lognormvariate(-(sigma**2) / 2, sigma)
        latencies += [ends - waiting.popleft() for _ in range(min(size, len(waiting)))]
        heapq.heappush(free, ends)
    return sorted(latencies)


def quantile_ms(latencies: list[float], share: float) -> float:
    """Of ascending seconds."""
    return round(latencies[int(share * len(latencies))] * 1e3, 1)


def best_rate(run_s: Mapping[int, float], workers: int) -> float:
    """Calls per second that one replica answers at most."""
    return workers * max(size / seconds for size, seconds in run_s.items())


def figures(
    run_s: Mapping[int, float], workers: int, rate: float, replicas: int, in_turns: bool, spread: float
) -> dict:
    """What the callers of so many replicas see; no latency where the replicas cannot keep up."""
    used = rate / replicas / best_rate(run_s, workers)
    told = {"replicas": replicas, "utilisation": round(used, 3)}
    if used >= FULL:
        return told
    latencies = simulate(run_s, workers, rate if in_turns else rate / replicas, replicas if in_turns else 1, spread)
    return told | {"p50_ms": quantile_ms(latencies, 0.5), "p99_ms": quantile_ms(latencies, 0.99)}


def enough(run_s: Mapping[int, float], workers: int, rate: float, p99_ms: float, in_turns: bool, spread: float) -> list:
    """Figures of ever more replicas, the last of which keeps the p99."""
    rows = []
    for replicas in range(max(1, math.ceil(rate / best_rate(run_s, workers))), MOST_REPLICAS):
        rows.append(figures(run_s, workers, rate, replicas, in_turns, spread))
        if rows[-1].get("p99_ms", math.inf) <= p99_ms:
            return rows
    sys.exit(f"no number of replicas answers within {p99_ms} ms: one batch takes {run_s[1] * 1e3:.1f} ms already")


def batch_seconds(models: Path, model: str, bodies: list[str], workers: int, seconds: float) -> dict[int, float]:
    """Seconds of a batch by its size, as served: every worker has one, and so many calls wait."""
    times = {}
    for size in SIZES:
        with served(models, model, ["--workers", str(workers), "--max-batch-size", str(size)]) as (_, address, _):
            load(address, bodies, seconds=1.0, callers=2 * size * workers)
            told = load(address, bodies, seconds=seconds, callers=3 * size * workers, deadline_s=30.0)
        times[size] = workers * size / told["answered_per_s"]
    return times


def checked(options: argparse.Namespace) -> dict:
    """What is measured beside what is simulated."""
    workers = options.workers or available_cores()
    encoded = pictures(options.pictures, options.model)
    with tempfile.TemporaryDirectory() as folder:
        bodies = write_requests(Path(folder), options.model, encoded)
        run_s = batch_seconds(options.models, options.model, bodies, workers, options.seconds / 3)
        best = best_rate(run_s, workers)
        print(f"{best:.0f} calls/s; batches:", {size: f"{seconds * 1e3:.1f} ms" for size, seconds in run_s.items()})
        rows = []
        flags = ["--workers", str(workers), "--max-batch-size", str(SIZES[-1])]
        with served(options.models, options.model, flags) as (_, address, _):
            load(address, bodies, seconds=1.0, callers=16)
            for fraction in options.fractions:
                told = load(address, bodies, seconds=options.seconds, rate=fraction * best, deadline_s=10.0)
                rows.append(
                    {
                        "fraction": fraction,
                        "measured": {key: told[key] for key in ("answered_per_s", "p50_ms", "p99_ms")},
                        "simulated": figures(run_s, workers, fraction * best, 1, False, options.spread),
                    }
                )
                print(json.dumps(rows[-1]))
    batches = {size: round(seconds * 1e3, 2) for size, seconds in run_s.items()}
    return {"benchmark": "simulate_replicas", "batch_ms": batches, "rows": rows, **conditions()}


def asked(options: argparse.Namespace) -> dict:
    """What so many replicas answer."""
    run_s = {int(size): float(ms) / 1e3 for size, ms in (pair.split("=") for pair in options.batch_ms)}
    words = (run_s, options.workers or 1, options.rate, options.p99_ms, options.balance == "turns", options.spread)
    rows = enough(*words)
    for row in rows:
        late = "cannot keep up" if "p99_ms" not in row else f"p50 {row['p50_ms']:8.1f} ms  p99 {row['p99_ms']:8.1f} ms"
        print(f"{row['replicas']:4} replicas  {row['utilisation']:6.1%}  {late}")
    needed = rows[-1]["replicas"]
    print(f"{needed} keep it; {needed + 1} keep it while one of them is away")
    return {"benchmark": "simulate_replicas", "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.5, 0.8, 0.9])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--batch-ms", nargs="+", metavar="SIZE=MS", help="instead of measuring")
    parser.add_argument("--workers", type=int, help="of each replica; default: the cores here, or 1 with --batch-ms")
    parser.add_argument("--rate", type=float, help="calls per second, of all replicas")
    parser.add_argument("--p99-ms", type=float)
    parser.add_argument("--balance", choices=("chance", "turns"), default="chance")
    parser.add_argument("--spread", type=float, default=SPREAD, help="of a batch's time: coefficient of variation")
    options = parser.parse_args()
    if options.models:
        print(json.dumps(checked(options)))
    elif options.batch_ms and options.rate and options.p99_ms:
        print(json.dumps(asked(options)))
    else:
        parser.error("--models, or --batch-ms, --rate and --p99-ms")


if __name__ == "__main__":
    main()
