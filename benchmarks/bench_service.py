"""The service against the limit: saturation, tail latency, overload, memory, start. Everything interleaved in one run.

    python -m benchmarks.bench_service --models FOLDER --model NAME [--pictures FOLDER] [--rounds 3] [--out FILE]

Each round measures the limit (see `bench_limit`), starts a server, and loads it from a process of its own
(`benchmarks.load`): closed loops, then Poisson arrivals at fractions of this round's limit. Figures are medians of
the rounds. The generator was not the bottleneck where `generator_cpu_share` is small and `generator_lag_p99_ms`, the
lateness of what it sent, is below the latencies. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench_limit import Arrangement, measure, pictures
from service.machine import available_cores
from taxon.v1 import classification_service_pb2 as pb

CLASSIFY = "/taxon.v1.ClassificationService/Classify"
CALLERS = (1, 16, 64, 256)
FRACTIONS = (0.5, 0.8, 0.95, 1.3, 2.0)
OPEN_FIGURES = (
    "p50_ms",
    "p99_ms",
    "refused_per_s",
    "refused_p50_ms",
    "generator_cpu_share",
    "generator_lag_p99_ms",
)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *map(int, children)]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children."""
    total = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def pss_mb(pid: int) -> float:
    """Proportional set size of a process and its children, in MB."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1e3


@contextmanager
def served(models: Path, model: str, flags: list[str]) -> Iterator[tuple[int, str, float]]:
    """A server of one model; yields its process, its address, and its seconds from start to SERVING."""
    with tempfile.TemporaryDirectory() as folder:
        root, port_file = Path(folder, "models"), Path(folder, "port")
        root.mkdir()
        (root / model).symlink_to((models / model).resolve())
        words = ["serve", "--models", str(root), "--listen", "127.0.0.1:0", "--port-file", str(port_file)]
        started = time.perf_counter()
        command = [sys.executable, "-m", "taxon.cli", *words, "--device", "cpu", "--log-level", "error", *flags]
        with subprocess.Popen(command) as process:
            while not port_file.exists():
                time.sleep(0.005)
            address = f"127.0.0.1:{port_file.read_text().strip()}"
            wait = [sys.executable, "-m", "benchmarks.ready", address]
            done = subprocess.run(wait, check=True, capture_output=True, text=True)
            ready_s = float(done.stdout) - started
            try:
                yield process.pid, address, ready_s
            finally:
                process.terminate()


def load(
    address: str, bodies: list[str], path: str = "/taxon.v1.ClassificationService/Classify", **plan: float
) -> dict:
    """One run of the generator, in a process of its own."""
    words = {"address": address, "path": path, "bodies": bodies, **plan}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", json.dumps(words)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def one_round(models: Path, model: str, folder: Path, encoded: list[bytes], seconds: float, flags: list[str]) -> dict:
    """Every figure once."""
    cores = available_cores()
    limit = max(measure(models, model, Arrangement(cores, 1, size), encoded, seconds) for size in (4, 8))
    bodies = sorted(str(path) for path in folder.iterdir())
    figures: dict[str, float | None] = {"limit": limit}
    with served(models, model, flags) as (pid, address, ready_s):
        figures["ready_s"] = ready_s
        load(address, bodies, seconds=1.0, callers=16)
        for callers in CALLERS:
            before = cpu_s(pid)
            run = load(address, bodies, seconds=seconds, callers=callers, deadline_s=10.0)
            figures[f"closed{callers}_of_limit"] = run["answered_per_s"] / limit
            figures[f"closed{callers}_p99_ms"] = run["p99_ms"]
            figures[f"closed{callers}_cpu_ms"] = (cpu_s(pid) - before) * 1e3 / (run["answered_per_s"] * (seconds + 0.5))
        figures["pss_mb"] = pss_mb(pid)
        for fraction in FRACTIONS:
            run = load(address, bodies, seconds=seconds, rate=fraction * limit)
            name = f"open{round(fraction * 100)}"
            figures[f"{name}_goodput_of_limit"] = run["good_per_s"] / limit
            for key in (
                "p50_ms",
                "p99_ms",
                "refused_per_s",
                "refused_p50_ms",
                "generator_cpu_share",
                "generator_lag_p99_ms",
            ):
                figures[f"{name}_{key}"] = run[key]
        figures["pss_after_overload_mb"] = pss_mb(pid)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--flags", default="", help="more flags of the server, in one word")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    with tempfile.TemporaryDirectory() as folder:
        for index, picture in enumerate(encoded):
            request = pb.ClassifyRequest(model_name=options.model, image=picture)
            Path(folder, f"{index:03}").write_bytes(request.SerializeToString())
        rounds = [
            one_round(options.models, options.model, Path(folder), encoded, options.seconds, options.flags.split())
            for _ in range(options.rounds)
        ]
    medians = {}
    for key in rounds[0]:
        values = [figures[key] for figures in rounds if figures[key] is not None]
        medians[key] = round(statistics.median(values), 3) if values else None
        print(f"{key:32} {medians[key]}")
    report = {"benchmark": "service", "model": options.model, "rounds": len(rounds), "flags": options.flags, **medians}
    if options.out:
        options.out.write_text(json.dumps({**report, "each_round": rounds}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
