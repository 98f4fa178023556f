"""Minutes of load on one server: does its memory stay flat, does every call get its answer?

    python -m benchmarks.bench_soak --models FOLDER --model NAME [--pictures FOLDER]
        [--phases 0.95:600 1.3:60 2.0:60] [--out FILE]

A phase is FRACTION:SECONDS of Poisson arrivals. Fractions are of the limit (see `bench_limit`), measured in the same
run; below 1, of what the service answers in a closed loop where that is less than the fraction of the limit (`base`
says which). Memory of all the server's processes is read each second; `growth` compares the end of a phase with the
time right after its first minute (after half of a phase shorter than two). The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bench_limit import pictures
from benchmarks.bench_service import best_limit, generator, load, served, write_requests
from benchmarks.conditions import conditions
from benchmarks.processes import cpu_s, family, memory

OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = "OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"
FIRST_MINUTE_S = 60.0


def growth(sizes_mb: list[float]) -> dict[str, float]:
    """Of one sample a second: after the first minute, at the end (medians of up to 30 samples), and between."""
    settled = min(int(FIRST_MINUTE_S), len(sizes_mb) // 2)
    window = max(1, min(30, settled // 2))
    start, end = (statistics.median(part) for part in (sizes_mb[settled : settled + window], sizes_mb[-window:]))
    return {
        "first_mb": sizes_mb[0],
        "settled_mb": start,
        "end_mb": end,
        "peak_mb": max(sizes_mb),
        "growth": round(end / start - 1, 4),
    }


def phase(pid: int, address: str, bodies: list[str], rate: float, seconds: float) -> dict:
    """One load; the server's memory each second."""
    rss, pss = [], []
    processes, began_s = family(pid), cpu_s(pid)
    with generator(address, bodies, rate=rate, seconds=seconds, warmup_s=0.0) as process:
        due = time.monotonic()
        while process.poll() is None:
            used = memory(pid)
            rss.append(used.rss_mb)
            pss.append(used.pss_mb)
            due += 1.0
            time.sleep(max(0.0, due - time.monotonic()))
        told = json.loads(process.stdout.read())
    statuses = told["statuses"]
    refused = statuses.get(RESOURCE_EXHAUSTED, 0) + statuses.get(DEADLINE_EXCEEDED, 0)
    return {
        "rate": round(rate, 1),
        "seconds": seconds,
        "answered": told["answered"],
        "refused": refused,
        "errors": sum(statuses.values()) - statuses.get(OK, 0) - refused,
        "statuses": statuses,
        "good_per_s": told["good_per_s"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "refused_p50_ms": told["refused_p50_ms"],
        "cpu_ms": round((cpu_s(pid) - began_s) * 1e3 / told["answered"], 3),
        "same_processes": family(pid) == processes,
        "rss": growth(rss),
        "pss": growth(pss),
        "generator_cpu_share": told["generator_cpu_share"],
        "generator_lag_p99_ms": told["generator_lag_p99_ms"],
        "rss_mb_each_second": rss,
    }


def parse(text: str) -> tuple[float, float]:
    """FRACTION:SECONDS."""
    fraction, seconds = text.split(":")
    return float(fraction), float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--phases", type=parse, nargs="+", default=[(0.95, 600.0), (1.3, 60.0), (2.0, 60.0)])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of the limit")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    limit = best_limit(options.models, options.model, encoded, options.seconds)
    report = {"benchmark": "soak", "model": options.model, **conditions(), "limit": round(limit, 1)}
    with tempfile.TemporaryDirectory() as folder, served(options.models, options.model, []) as (pid, address, _):
        bodies = write_requests(Path(folder), options.model, encoded)
        load(address, bodies, seconds=1.0, callers=16)
        saturated = load(address, bodies, seconds=options.seconds, callers=64, deadline_s=10.0)["answered_per_s"]
        report["saturated_per_s"] = saturated
        phases = []
        for fraction, seconds in options.phases:
            base = "saturated" if fraction < 1 and saturated < fraction * limit else "limit"
            rate = fraction * (saturated if base == "saturated" else limit)
            told = phase(pid, address, bodies, rate, seconds)
            phases.append({"fraction": fraction, "base": base, **told})
            print(*(f"{key:24} {value}" for key, value in phases[-1].items()), "", sep="\n")
    if options.out:
        options.out.write_text(json.dumps({**report, "phases": phases}, indent=1) + "\n", encoding="utf-8")
    brief = [{key: value for key, value in each.items() if key != "rss_mb_each_second"} for each in phases]
    print(json.dumps({**report, "phases": brief}))


if __name__ == "__main__":
    main()
