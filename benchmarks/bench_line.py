"""The serving line against that of another checkout: everything interleaved in one run.

    python -m benchmarks.bench_line --before CHECKOUT --models FOLDER --model NAME [--rounds 5] [--quick] [--out FILE]

Each round starts both servers in turn, the other one first every second time, and loads each from a process of its
own. Figures are medians over the rounds of after ÷ before (times: before ÷ after, so that more is better everywhere);
the last line is one JSON object:

    closedN                   answers/s with N calls always under way
    openN_p99                 tail latency at N % of this round's limit (see `bench_limit`)
    openN_goodput             answers within 1 s at N % of the limit
    ready, pss, pss_after     from the command to SERVING; memory after the closed loops, after the overload
    closedN_front_cpu         CPU time per answer of the process that speaks gRPC

What a setting costs: `--before . --before-flags "" --flags "--access-log-sample 1"`.

With `--tiny` (for models that cost less than a call) the overload is at twice what the server answers at saturation,
and the absolute figures of the new line are given: goodput as a share of that, refusals, their latency.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.bench_limit import pictures
from benchmarks.bench_service import best_limit, load, served, watched, write_requests
from benchmarks.conditions import conditions, tell
from benchmarks.processes import cpu_s_of, memory

CALLERS = (16, 64)
CALM, OVER = (0.5, 0.8), (1.3, 2.0)


def measure(
    options: argparse.Namespace, checkout: Path | None, flags: str, bodies: list[str], limit: float
) -> dict[str, float]:
    """Every figure of one server once."""
    seconds = options.seconds
    figures: dict[str, float] = {}
    with served(options.models, options.model, flags.split(), checkout) as (pid, address, ready_s):
        figures["ready"] = ready_s
        load(address, bodies, seconds=1.0, callers=16)
        for callers in CALLERS:
            front = cpu_s_of(pid)
            run = watched(pid, address, bodies, seconds=seconds, callers=callers, deadline_s=10.0)
            figures[f"closed{callers}"] = run["answered_per_s"]
            figures[f"closed{callers}_front_cpu"] = (cpu_s_of(pid) - front) * 1e3 / run["answered"]
        figures["pss"] = memory(pid).pss_mb
        whole = figures["closed64"] if options.tiny else limit
        for fraction in CALM:
            run = load(address, bodies, seconds=seconds, rate=fraction * whole)
            figures[f"open{round(fraction * 100)}_p99"] = run["p99_ms"] or 1e4
        for fraction in OVER:
            name = f"open{round(fraction * 100)}"
            run = load(address, bodies, seconds=seconds, rate=fraction * whole)
            figures |= {
                f"{name}_goodput": run["good_per_s"],
                f"{name}_goodput_of_saturation": run["good_per_s"] / figures["closed64"],
            }
            figures |= {
                f"{name}_refused_p50": run["refused_p50_ms"] or 0.0,
                f"{name}_expired_per_s": run["statuses"].get("DEADLINE_EXCEEDED", 0) / seconds,
            }
        figures["pss_after"] = memory(pid).pss_mb
    return figures


def better(key: str, before: float, after: float) -> float:
    """How many times as good."""
    more_is_better = (key.startswith("closed") and not key.endswith("front_cpu")) or key.endswith("_goodput")
    ratio = after / before if more_is_better else before / after
    return round(ratio, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--flags", default="", help="more flags of both servers, in one word")
    parser.add_argument("--before-flags", help="those of the other server, where they differ")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    encoded = pictures(options.pictures, options.model)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        bodies = write_requests(Path(folder), options.model, encoded)
        for number in range(options.rounds):
            limit = best_limit(options.models, options.model, encoded, options.seconds)
            sides = {"before": options.before.resolve(), "after": None}
            order = list(sides) if number % 2 else list(reversed(sides))
            flags = {"before": options.flags if options.before_flags is None else options.before_flags}
            rounds.append(
                {side: measure(options, sides[side], flags.get(side, options.flags), bodies, limit) for side in order}
                | {"limit": limit}
            )
            print(json.dumps(rounds[-1]), flush=True)
    keys = [
        key for key in rounds[0]["after"] if "refused" not in key and "expired" not in key and "saturation" not in key
    ]
    ratios = {
        key: statistics.median(better(key, one["before"][key], one["after"][key]) for one in rounds) for key in keys
    }
    absolute = {
        side: {key: round(statistics.median(one[side][key] for one in rounds), 3) for key in rounds[0][side]}
        for side in ("before", "after")
    }
    for key, ratio in ratios.items():
        print(f"{key:24} {ratio:6.3f}   {absolute['before'][key]:10.2f} → {absolute['after'][key]:.2f}")
    report = {
        "benchmark": "line",
        "model": options.model,
        "rounds": len(rounds),
        **conditions(),
        "ratios": ratios,
        **absolute,
    }
    tell(report, options.out, each_round=rounds)


if __name__ == "__main__":
    main()
