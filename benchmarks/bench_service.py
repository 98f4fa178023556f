"""The service against the limit: saturation, tail latency, overload, memory, start. Everything interleaved in one run.

    python -m benchmarks.bench_service --models FOLDER --model NAME [--pictures FOLDER] [--rounds 3] [--out FILE]

Each round measures the limit (see `bench_limit`), starts a server, and loads it from a process of its own
(`benchmarks.load`): closed loops, then Poisson arrivals at fractions of this round's limit. Figures are medians of
the rounds; the last line is one JSON object:

    limit                     images/s without a server
    ready_s                   from the command to SERVING, goldens included
    closedN_of_limit, …       N calls always under way: answers, as a share of the limit; their latency
    closedN_cpu_ms            CPU time of all the server's processes per answer
    …_server_cores            cores that they kept busy
    …_machine_cores           cores that were busy at all: what is above server and generator went to others
    openN_goodput_of_limit    Poisson arrivals at N % of the limit: answers within 1 s, as a share of the limit
    rss_mb, pss_mb            memory of all the server's processes after the closed loops, and after the overload
    …_generator_cpu_share     what the generator took of one core. The limit is measured without it, so this share,
                              divided by the cores, is charged to the service
    …_generator_lag_p99_ms    how late it sent what was due: latencies below that are its own

The generator was not the bottleneck where both are small.
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
from benchmarks.conditions import conditions, tell
from benchmarks.processes import busy_s, cpu_s, memory
from taxon.service.machine import available_cores
from taxon.v1 import classification_service_pb2 as pb

CLASSIFY = "/taxon.v1.ClassificationService/Classify"
LIMIT_BATCHES = (1, 4, 8)
CALLERS = (1, 16, 64, 256)
FRACTIONS = (0.5, 0.8, 0.95, 1.3, 2.0)
CLOSED_FIGURES = ("p50_ms", "p99_ms", "cpu_ms", "server_cores", "machine_cores", "generator_cpu_share")
OPEN_FIGURES = (
    "p50_ms",
    "p99_ms",
    "server_cores",
    "machine_cores",
    "refused_per_s",
    "refused_p50_ms",
    "generator_cpu_share",
    "generator_lag_p99_ms",
)


@contextmanager
def served(
    models: Path, model: str, flags: list[str], checkout: Path | None = None, program: str = "taxon.cli"
) -> Iterator[tuple[int, str, float]]:
    """A server of one model; yields its process, its address, and its seconds from start to SERVING. The code is that
    of `checkout` if one is given; `program` is the module that is run.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "models")
        root.mkdir()
        (root / model).symlink_to((models / model).resolve())
        with serving(root, flags, checkout, program) as server:
            yield server


@contextmanager
def serving(
    root: Path, flags: list[str], checkout: Path | None = None, program: str = "taxon.cli"
) -> Iterator[tuple[int, str, float]]:
    """A server of all models of a folder; the same otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder, "port")
        words = ["serve", "--models", str(root), "--listen", "127.0.0.1:0", "--port-file", str(port_file)]
        started = time.perf_counter()
        command = [sys.executable, "-m", program, *words, "--device", "cpu", "--log-level", "error", *flags]
        environment = os.environ if checkout is None else {**os.environ, "PYTHONPATH": str(checkout)}
        with subprocess.Popen(command, cwd=checkout, env=environment) as process:
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


def generator(address: str, bodies: list[str], path: str = CLASSIFY, **plan: float) -> subprocess.Popen:
    """Starts the generator in a process of its own; its output is one JSON object."""
    words = {"address": address, "path": path, "bodies": bodies, **plan}
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def load(address: str, bodies: list[str], **plan: float) -> dict:
    """One run of the generator."""
    with generator(address, bodies, **plan) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the generator ended with status {process.returncode}")
    return json.loads(output)


def watched(pid: int, address: str, bodies: list[str], **plan: float) -> dict:
    """`load`, and where the machine's CPU time went meanwhile."""
    began, server, machine = time.perf_counter(), cpu_s(pid), busy_s()
    told = load(address, bodies, **plan)
    elapsed, server, machine = time.perf_counter() - began, cpu_s(pid) - server, busy_s() - machine
    cpu_ms = server * 1e3 / told["answered"] if told["answered"] else None
    return {**told, "cpu_ms": cpu_ms, "server_cores": server / elapsed, "machine_cores": machine / elapsed}


def best_limit(models: Path, model: str, encoded: list[bytes], seconds: float) -> float:
    """Images per second with no server, by one process of one thread for each core: the best batch size."""
    cores = available_cores()
    return max(measure(models, model, Arrangement(cores, 1, size), encoded, seconds) for size in LIMIT_BATCHES)


def one_round(
    models: Path, model: str, bodies: list[str], encoded: list[bytes], seconds: float, flags: list[str]
) -> dict:
    """Every figure once."""
    limit = best_limit(models, model, encoded, seconds)
    figures: dict[str, float | None] = {"limit": limit}
    with served(models, model, flags) as (pid, address, ready_s):
        figures["ready_s"] = ready_s
        load(address, bodies, seconds=1.0, callers=16)
        for callers in CALLERS:
            run = watched(pid, address, bodies, seconds=seconds, callers=callers, deadline_s=10.0)
            name = f"closed{callers}"
            figures[f"{name}_of_limit"] = run["answered_per_s"] / limit
            figures |= {f"{name}_{key}": run[key] for key in CLOSED_FIGURES}
        used = memory(pid)
        figures |= {"rss_mb": used.rss_mb, "pss_mb": used.pss_mb}
        for fraction in FRACTIONS:
            run = watched(pid, address, bodies, seconds=seconds, rate=fraction * limit)
            name = f"open{round(fraction * 100)}"
            figures[f"{name}_goodput_of_limit"] = run["good_per_s"] / limit
            figures |= {f"{name}_{key}": run[key] for key in OPEN_FIGURES}
        used = memory(pid)
        figures |= {"rss_after_overload_mb": used.rss_mb, "pss_after_overload_mb": used.pss_mb}
    return figures


def write_requests(folder: Path, model: str, encoded: list[bytes]) -> list[str]:
    """Writes a request for each picture; returns the files."""
    files = []
    for index, picture in enumerate(encoded):
        path = folder / f"{index:03}.pb"
        path.write_bytes(pb.ClassifyRequest(model_name=model, image=picture).SerializeToString())
        files.append(str(path))
    return files


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
        bodies = write_requests(Path(folder), options.model, encoded)
        rounds = [
            one_round(options.models, options.model, bodies, encoded, options.seconds, options.flags.split())
            for _ in range(options.rounds)
        ]
    medians = {}
    for key in rounds[0]:
        values = [figures[key] for figures in rounds if figures[key] is not None]
        medians[key] = round(statistics.median(values), 3) if values else None
        print(f"{key:32} {medians[key]}")
    report = {"benchmark": "service", "model": options.model, "rounds": len(rounds), **conditions(), **medians}
    tell(report, options.out, each_round=rounds)


if __name__ == "__main__":
    main()
