"""ResNet-50 on a GPU, from the bare session to the served picture: rates, p99, and where the time goes.

    python -m benchmarks.bench_gpu [--provider cuda|tensorrt|cpu] [--quick] [--rounds 3] [--seconds 4]
        [--size 64]… [--precision fp16]… [--layout 4,auto]… [--flags FLAGS] [--out FILE]

In one command, with bundles of its own: the session's images per second for fp32 and fp16 at each batch size (rounds
interleaved, medians); then the server, for each precision and number of fronts and decoders: pixels through the Open
Inference Protocol, pictures through `Classify`, the rate of a closed loop as a share of the session's best, and the
highest Poisson rate of which 99 % are answered within 15 ms. For each: the server's CPU time per answer, mean
milliseconds of every stage, mean batch, the GPU's load, and the generators' share of their cores. `bench_gpu_sessions`
compares the session's options. `--provider cpu --quick` shows that the script works. The last line is one JSON object.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import bundles
from benchmarks.bench_gpu_sessions import gpu, rate
from benchmarks.bench_open_inference import bodies
from benchmarks.bench_peers import free_port
from benchmarks.bench_service import served
from benchmarks.conditions import conditions, tell
from benchmarks.processes import cpu_s
from taxon.bundle import store
from taxon.service.machine import available_cores
from taxon.service.runtime.device import TENSORRT, choose_device
from taxon.service.runtime.session import open_session, profile

PRECISIONS = ("fp32", "fp16")
LAYOUTS = (("1", "auto"), ("2", "auto"), ("4", "auto"), ("8", "auto"), ("4", "1"), ("4", "4"), ("4", "8"))
"""Fronts and decoders."""
QUICK_LAYOUTS = (("1", "1"), ("2", "1"))
FRACTIONS = (0.5, 0.7, 0.8, 0.9, 0.95)
P99_MS = 15.0
WAYS = {"UINT8": "pixels", "Classify": "pictures"}
CALLERS_PER_GENERATOR = 64
LINES = re.MULTILINE


def raw(root: Path, model: str, provider: str, sizes: list[int], rounds: int, seconds: float) -> dict[str, dict]:
    """Images per second of the session alone, by precision and batch size."""
    bundle = store.read(root, model, 1)
    shape = bundle.manifest.input.shape
    options = {TENSORRT: profile("image", shape, sizes[-1])}
    random = np.random.default_rng(0)
    batches = {size: random.integers(0, 256, (size, *shape), dtype=np.uint8) for size in sizes}
    sessions = {
        variant.precision: open_session(bundle.folder / variant.file, provider, 0, options)
        for variant in bundle.manifest.variants
    }
    rates: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name in sessions}
    for _ in range(rounds):
        for size, batch in batches.items():
            for name, session in sessions.items():
                session.run(batch)
                rates[name][size].append(rate(session, batch, seconds))
    return {
        name: {size: round(statistics.median(each), 1) for size, each in by_size.items()}
        for name, by_size in rates.items()
    }


def load(address: str, way: tuple[str, list[str]], generators: int, seconds: float, offered: float = 0.0) -> dict:
    """Loads a server from several processes at once; `offered` calls per second, or as many as it answers."""
    path, files = way
    plan = {"address": address, "path": path, "bodies": files, "seconds": seconds, "deadline_s": 5.0}

    def one(number: int) -> dict:
        share = {"rate": offered / generators} if offered else {"callers": CALLERS_PER_GENERATOR}
        words = [sys.executable, "-m", "benchmarks.load", json.dumps({**plan, **share, "seed": number})]
        return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    with ThreadPoolExecutor(generators) as pool:
        runs = list(pool.map(one, range(generators)))
    worst = [run["p99_ms"] for run in runs if run["p99_ms"] is not None]
    return {
        "per_s": round(sum(run["answered_per_s"] for run in runs), 1),
        "answered": sum(run["answered"] for run in runs),
        "p99_ms": max(worst, default=None),
        "not_ok": sum(count for run in runs for status, count in run["statuses"].items() if status != "OK"),
        "generator_cpu_share": max(run["generator_cpu_share"] for run in runs),
    }


def counted(page: str) -> dict[str, float]:
    """The sums and counts of the server's histograms."""
    with urllib.request.urlopen(page, timeout=10) as opened:
        text = opened.read().decode()
    sizes = re.findall(r"^taxon_(batch_size_(?:sum|count)).*\} (\S+)$", text, LINES)
    found = {name: float(value) for name, value in sizes}
    stages = re.findall(r'^taxon_stage_seconds_sum\{.*stage="(\w+)".*\} (\S+)$', text, LINES)
    found |= {stage: float(seconds) for stage, seconds in stages}
    return found


def spent(before: dict[str, float], after: dict[str, float], answered: int) -> dict[str, float]:
    """Where the time went between two looks at the metrics page."""
    gone = {name: after[name] - before.get(name, 0.0) for name in after}
    runs, inputs = gone.pop("batch_size_count"), gone.pop("batch_size_sum")
    stages = {f"{stage}_ms": round(seconds * 1e3 / max(1, answered), 2) for stage, seconds in gone.items()}
    return {**stages, "mean_batch": round(inputs / max(1.0, runs), 1)}


def seen_after(seconds: float) -> str:
    """The GPU's load and memory in the middle of a run."""
    time.sleep(seconds)
    return gpu("utilization.gpu,memory.used")


def one_server(
    root: Path, model: str, flags: list[str], ways: dict, generators: int, seconds: float, limit: float
) -> dict[str, dict]:
    """Every way in of one server."""
    port = free_port()
    page = f"http://127.0.0.1:{port}/metrics"
    rows: dict[str, dict] = {}
    with served(root, model, [*flags, "--metrics-port", str(port)]) as (pid, address, ready_s):
        for way, named in WAYS.items():
            load(address, ways[way], generators, min(seconds, 1.0))
            before, cpu = counted(page), cpu_s(pid)
            with ThreadPoolExecutor(1) as watcher:
                seen = watcher.submit(seen_after, seconds / 2)
                closed = load(address, ways[way], generators, seconds)
            row = {
                "ready_s": round(ready_s, 2),
                **closed,
                "of_session": round(closed["per_s"] / limit, 3),
                "cpu_ms": round((cpu_s(pid) - cpu) * 1e3 / max(1, closed["answered"]), 3),
                **spent(before, counted(page), closed["answered"]),
                "gpu_percent_mb": seen.result(),
            }
            open_runs = {
                fraction: load(address, ways[way], generators, seconds, fraction * closed["per_s"])
                for fraction in FRACTIONS
            }
            row["p99_ms_by_load"] = {fraction: run["p99_ms"] for fraction, run in open_runs.items()}
            in_time = [run["per_s"] for run in open_runs.values() if run["p99_ms"] and run["p99_ms"] <= P99_MS]
            row["per_s_within_15_ms"] = max(in_time, default=None)
            rows[named] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="MobileNetV3-small, small batches, short runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--size", type=int, action="append", help="batch sizes of the session; default: 1 to 128")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="of those served; default: each")
    parser.add_argument("--layout", action="append", help="fronts,decoders; default: several")
    parser.add_argument("--flags", default="", help="more flags of the server, in one word; for example --cuda-graphs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    provider = choose_device(options.provider, cuda_graphs="off", engine_cache=None).provider
    model = "mobilenet" if options.quick else "resnet50"
    sizes = [1, 4] if options.quick else options.size or [1, 2, 4, 8, 16, 32, 64, 128]
    seconds = 0.5 if options.quick else options.seconds
    layouts = QUICK_LAYOUTS if options.quick else LAYOUTS
    if options.layout:
        layouts = tuple(tuple(layout.split(",")) for layout in options.layout)
    generators = max(1, available_cores() // 4)
    with tempfile.TemporaryDirectory() as made:
        root, requests = Path(made, "models"), Path(made, "requests")
        requests.mkdir()
        bundles.build(root, model, half_too=True)
        sessions = raw(root, model, provider, sizes, 1 if options.quick else options.rounds, seconds / 4)
        print(json.dumps(sessions), flush=True)
        ways = bodies(root, model, requests)
        found: dict[str, dict] = {}
        for precision in options.precision or PRECISIONS:
            limit = max(sessions[precision].values())
            for fronts, decoders in layouts:
                flags = ["--device", options.provider, "--variant", precision]
                flags += ["--fronts", fronts, "--decoders", decoders]
                flags += ["--workers", "1"] if options.provider == "cpu" else []
                named = f"{precision} fronts {fronts} decoders {decoders}"
                started = time.perf_counter()
                found[named] = rows = one_server(
                    root, model, [*flags, *options.flags.split()], ways, generators, seconds, limit
                )
                for way, row in rows.items():
                    print(f"{named} {way:8} {row}", flush=True)
                print(f"{time.perf_counter() - started:.0f} s", flush=True)
    report = {
        "benchmark": "gpu",
        "model": model,
        "provider": provider,
        "flags": options.flags,
        "generators": generators,
        "session_images_per_s": sessions,
        "served": found,
        "gpu": gpu(),
        **conditions(),
    }
    tell(report, options.out)


if __name__ == "__main__":
    main()
