"""Taxon beside mosec, Triton's Python backend and a plain grpc.aio server: same model, pictures, load, one run.

    python -m benchmarks.bench_peers --models FOLDER --model mobilenet --pictures FOLDER \\
        [--mosec PYTHON] [--triton PYTHON] [--rounds 3] [--seconds 4] [--fractions 0.5 0.8 1.3 2.0] [--out FILE]

PYTHON is the interpreter of an environment with onnxruntime, NumPy, Pillow and the peer: mosec 0.9.8, or
nvidia-pytriton 0.7.0, whose wheel holds Triton 2.51 (installed with --no-deps beside NumPy 1.26: with NumPy 2 its
Python backend reads every input as its first byte repeated). A peer without one is left out.

A bare grpc.aio echo of the same bytes runs in one process and in as many as cores. `bound_per_s` is what these cores
could serve if a front end cost no more than that echo: cores / (CPU time of the work + CPU time of the echo). Figures
are medians of the rounds, open loops offer fractions of the round's limit; the last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench_limit import pictures
from benchmarks.bench_service import CLASSIFY, best_limit, load, served, watched, write_requests
from benchmarks.conditions import conditions, tell
from benchmarks.load import run
from benchmarks.processes import memory
from taxon.bundle import store
from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.machine import available_cores

PEERS = Path(__file__).parent / "peers"
TAXON, AIO, MOSEC, TRITON, ECHO = "taxon", "plain grpc.aio", "mosec", "triton", "echo"
CALLERS, FEW_CALLERS = 64, 16
CONNECTIONS = 16
"""Enough that the kernel spreads them over all processes of a port."""
START_TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def triton_command(python: Path, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Lays out a repository and a backend folder for the server inside pytriton's wheel."""
    (wheel,) = python.parent.parent.glob("lib/python3*/site-packages/pytriton/tritonserver")
    version = wheel.parts[-4].removeprefix("python")
    model = folder / "models" / "peer"
    (model / "1").mkdir(parents=True)
    shutil.copy(PEERS / "triton_config.pbtxt", model / "config.pbtxt")
    shutil.copy(PEERS / "triton_model.py", model / "1" / "model.py")
    shutil.copy(PEERS / "work.py", model / "1")
    backend = folder / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy(wheel / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    libraries = [wheel.parents[1] / "nvidia_pytriton.libs", Path(sys.base_prefix) / "lib"]
    environment = {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PATH": f"{python.parent}:{os.environ['PATH']}",  # the backend's stub finds its packages through `python3`
    }
    words = ["--model-repository", folder / "models", "--backend-directory", folder / "backends"]
    words += ["--grpc-port", port, "--allow-http", "false", "--allow-metrics", "false"]
    return [str(wheel / "bin" / "tritonserver"), *map(str, words)], environment


@contextmanager
def peer(name: str, python: Path, bodies: list[str], model: dict[str, str], processes: int = 1) -> Iterator[tuple]:
    """A running peer: its process, what the generator must know of it, and seconds from its start to its first answer.

    `model` is what its environment says of the model; `processes` counts for the echo only.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(PEERS)}
        if name == TRITON:
            command, environment = triton_command(python, Path(folder), port)
        elif name == MOSEC:
            command = [str(python), str(PEERS / "mosec_server.py"), "--port", str(port), "--log-level", "error"]
        elif name == ECHO:
            command = [str(python), str(PEERS / "echo_server.py"), str(port), str(processes)]
        else:
            command = [str(python), str(PEERS / "aio_server.py"), str(port)]
        path = {TRITON: "/inference.GRPCInferenceService/ModelInfer", MOSEC: "/inference"}.get(name, CLASSIFY)
        plan = {"address": f"127.0.0.1:{port}", "path": path, "http1": name == MOSEC, "bodies": bodies}
        everything = {**os.environ, **model, "OMP_NUM_THREADS": "1", **environment}
        started = time.perf_counter()
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=everything, stdout=quiet, stderr=quiet, start_new_session=True) as process:
            try:
                while not answers(plan):
                    if process.poll() is not None or time.perf_counter() > started + START_TIMEOUT_S:
                        raise RuntimeError(f"{name} did not start")
                    time.sleep(0.02)
                yield process.pid, plan, time.perf_counter() - started
            finally:
                os.killpg(process.pid, signal.SIGTERM)


def answers(plan: dict) -> bool:
    """Whether one call is answered."""
    once = {**plan, "bodies": plan["bodies"][:1], "connections": 1}
    try:
        return bool(run(**once, seconds=0.01, warmup_s=0.0, callers=1, deadline_s=10.0)["answered"])
    except OSError:  # nobody listens yet
        return False


def saturate(pid: int, plan: dict, seconds: float) -> dict[str, float]:
    """A closed loop of many callers."""
    load(**plan, seconds=1.0, callers=CALLERS, deadline_s=10.0)
    told = watched(pid, **plan, seconds=seconds, callers=CALLERS, deadline_s=10.0)
    kept = ("cpu_ms", "server_cores", "machine_cores", "generator_cpu_share")
    return {"saturated_per_s": told["answered_per_s"], **{f"saturated_{key}": told[key] for key in kept}}


def figures(pid: int, plan: dict, limit: float, options: argparse.Namespace) -> dict[str, float | None]:
    """One server's figures of one round."""
    found: dict[str, float | None] = dict(saturate(pid, plan, options.seconds))
    few = load(**plan, seconds=options.seconds, callers=FEW_CALLERS, deadline_s=10.0)
    found[f"closed{FEW_CALLERS}_per_s"] = few["answered_per_s"]
    for fraction in options.fractions:
        told = load(**plan, seconds=options.seconds, rate=fraction * limit)
        name = f"open{round(fraction * 100)}"
        found[f"{name}_goodput_of_limit"] = told["good_per_s"] / limit
        found |= {f"{name}_{key}": told[key] for key in ("p50_ms", "p99_ms", "generator_lag_p99_ms")}
    used = memory(pid)
    return found | {"rss_mb": used.rss_mb, "pss_mb": used.pss_mb}


def one_round(options: argparse.Namespace, encoded: list[bytes], bodies: dict[str, list[str]]) -> dict[str, dict]:
    """Every server's figures once."""
    model, seconds, cores = options.model, options.seconds, available_cores()
    bundle = store.read(options.models, model, 1)
    told = {
        "MODEL": str((options.models / model / "1" / "model.onnx").resolve()),
        "RESIZE": json.dumps(bundle.manifest.pixels.resize),
    }
    limit = best_limit(options.models, model, encoded, seconds)
    echo = {}
    for processes in sorted({1, cores}):
        with peer(ECHO, Path(sys.executable), bodies["pb"], {}, processes) as (pid, plan, _):
            echo[processes] = saturate(pid, {**plan, "connections": CONNECTIONS}, seconds)
    one, many = (echo[processes]["saturated_per_s"] for processes in (1, cores))
    bound = cores / (cores / limit + echo[1]["saturated_cpu_ms"] / 1e3)
    found = {
        "limit": {"images_per_s": limit, "bound_per_s": bound, "bound_of_limit": bound / limit},
        **{f"echo, {processes} processes": figured for processes, figured in echo.items()},
    }
    with served(options.models, model, []) as (pid, address, ready_s):
        plan = {"address": address, "path": CLASSIFY, "bodies": bodies["pb"]}
        ready = time.perf_counter()
        answers(plan)
        first_answer_s = ready_s + time.perf_counter() - ready
        found[TAXON] = {"first_answer_s": first_answer_s, **figures(pid, plan, limit, options)}
    for name, python in {AIO: Path(sys.executable), MOSEC: options.mosec, TRITON: options.triton}.items():
        if python is not None:
            kind = {MOSEC: "raw", TRITON: "oip"}.get(name, "pb")
            with peer(name, python, bodies[kind], told) as (pid, plan, first_answer_s):
                found[name] = {"first_answer_s": first_answer_s, **figures(pid, plan, limit, options)}
    for name in (TAXON, AIO, MOSEC, TRITON):
        if name in found:
            rate = found[name]["saturated_per_s"]
            ratios = {
                "of_limit": rate / limit,
                "of_bound": rate / bound,
                "of_echo": rate / one,
                "of_echo_on_all_cores": rate / many,
            }
            found[name] = {**ratios, **found[name]}
    return found


def write_bodies(folder: Path, model: str, encoded: list[bytes]) -> dict[str, list[str]]:
    """The request files of each protocol."""
    files: dict[str, list[str]] = {"pb": write_requests(folder, model, encoded), "raw": [], "oip": []}
    for index, picture in enumerate(encoded):
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1])
        content = len(picture).to_bytes(4, "little") + picture
        request = oip.ModelInferRequest(model_name="peer", inputs=[tensor], raw_input_contents=[content])
        for kind, body in {"raw": picture, "oip": request.SerializeToString()}.items():
            path = folder / f"{index:03}.{kind}"
            path.write_bytes(body)
            files[kind].append(str(path))
    return files


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--mosec", type=Path)
    parser.add_argument("--triton", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.5, 0.8, 1.3, 2.0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    with tempfile.TemporaryDirectory() as folder:
        bodies = write_bodies(Path(folder), options.model, encoded)
        rounds = [one_round(options, encoded, bodies) for _ in range(options.rounds)]
    medians: dict[str, dict[str, float | None]] = {}
    for name, keys in rounds[0].items():
        medians[name] = {}
        for key in keys:
            values = [one[name][key] for one in rounds if one[name][key] is not None]
            medians[name][key] = round(statistics.median(values), 3) if values else None
        print(name, *(f"{key:32} {value}" for key, value in medians[name].items()), sep="\n    ")
    report = {"benchmark": "peers", "model": options.model, "rounds": len(rounds), **conditions(), "medians": medians}
    tell(report, options.out, each_round=rounds)


if __name__ == "__main__":
    main()
