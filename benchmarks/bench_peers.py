"""Taxon beside mosec, Triton's Python backend and a plain grpc.aio server: same model, pictures, load, one run.

    python -m benchmarks.bench_peers --models FOLDER --model mobilenet --pictures FOLDER \\
        [--mosec PYTHON] [--triton PYTHON] [--rounds 3] [--seconds 4] [--out FILE]

PYTHON is the interpreter of an environment with onnxruntime, NumPy, Pillow and the peer (mosec 0.9.8, or
nvidia-pytriton, whose wheel holds Triton); a peer without one is left out. Medians of the rounds; the last line is
one JSON object.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench_limit import Arrangement, measure, pictures
from benchmarks.bench_service import load, pss_mb, served
from service.machine import available_cores
from taxon.inference import open_inference_service_pb2 as oip
from taxon.v1 import classification_service_pb2 as pb

PEERS = Path(__file__).parent / "peers"
TAXON, AIO, MOSEC, TRITON = "taxon", "plain grpc.aio", "mosec", "triton"
FRACTIONS = (0.5, 0.8, 1.3, 2.0)
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
def peer(name: str, python: Path, graph: Path, bodies: list[str]) -> Iterator[tuple[int, dict]]:
    """A running peer: its process and what the generator must know of it."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(PEERS)}
        if name == TRITON:
            command, environment = triton_command(python, Path(folder), port)
        elif name == MOSEC:
            command = [str(python), str(PEERS / "mosec_server.py"), "--port", str(port), "--log-level", "error"]
        else:
            command = [str(python), str(PEERS / "aio_server.py"), str(port)]
        path = {TRITON: "/inference.GRPCInferenceService/ModelInfer", MOSEC: "/inference"}.get(
            name, "/taxon.v1.ClassificationService/Classify"
        )
        plan = {"address": f"127.0.0.1:{port}", "path": path, "http1": name == MOSEC, "bodies": bodies}
        everything = {**os.environ, "MODEL": str(graph), "OMP_NUM_THREADS": "1", **environment}
        with subprocess.Popen(command, env=everything, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                until = time.monotonic() + START_TIMEOUT_S
                while True:
                    try:
                        if load(**plan, seconds=0.2, warmup_s=0.0, callers=1, deadline_s=10.0)["answered_per_s"]:
                            break
                    except subprocess.CalledProcessError:
                        if process.poll() is not None or time.monotonic() > until:
                            raise
                    time.sleep(0.1)
                yield process.pid, plan
            finally:
                process.terminate()


def figures(pid: int, plan: dict, limit: float, seconds: float) -> dict[str, float | None]:
    """One peer's figures of one round."""
    load(**plan, seconds=1.0, callers=16, deadline_s=10.0)
    run = load(**plan, seconds=seconds, callers=32, deadline_s=10.0)
    found: dict[str, float | None] = {"saturated_of_limit": run["answered_per_s"] / limit}
    for fraction in FRACTIONS:
        run = load(**plan, seconds=seconds, rate=fraction * limit)
        found[f"open{round(fraction * 100)}_goodput"] = run["good_per_s"] / limit
        found[f"open{round(fraction * 100)}_p99_ms"] = run["p99_ms"]
    found["pss_mb"] = pss_mb(pid)
    return found


def write_bodies(folder: Path, model: str, encoded: list[bytes]) -> dict[str, list[str]]:
    """The request files of each protocol."""
    files: dict[str, list[str]] = {"pb": [], "raw": [], "oip": []}
    for index, picture in enumerate(encoded):
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1])
        content = len(picture).to_bytes(4, "little") + picture
        made = {
            "pb": pb.ClassifyRequest(model_name=model, image=picture).SerializeToString(),
            "raw": picture,
            "oip": oip.ModelInferRequest(
                model_name="peer", inputs=[tensor], raw_input_contents=[content]
            ).SerializeToString(),
        }
        for kind, body in made.items():
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
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoded = pictures(options.pictures, options.model)
    graph = (options.models / options.model / "1" / "model.onnx").resolve()
    pythons = {AIO: Path(sys.executable), MOSEC: options.mosec, TRITON: options.triton}
    results: dict[str, list[dict]] = {name: [] for name in (TAXON, *pythons) if name == TAXON or pythons[name]}
    limits = []
    with tempfile.TemporaryDirectory() as folder:
        bodies = write_bodies(Path(folder), options.model, encoded)
        for _ in range(options.rounds):
            sizes = [Arrangement(available_cores(), 1, size) for size in (4, 8)]
            limit = max(measure(options.models, options.model, size, encoded, options.seconds) for size in sizes)
            limits.append(limit)
            for name, rounds in results.items():
                if name == TAXON:
                    with served(options.models, options.model, []) as (pid, address, _):
                        path = "/taxon.v1.ClassificationService/Classify"
                        plan = {"address": address, "path": path, "bodies": bodies["pb"]}
                        rounds.append(figures(pid, plan, limit, options.seconds))
                    continue
                kind = {MOSEC: "raw", TRITON: "oip"}.get(name, "pb")
                with peer(name, pythons[name], graph, bodies[kind]) as (pid, plan):
                    rounds.append(figures(pid, plan, limit, options.seconds))
    medians = {}
    for name, rounds in results.items():
        medians[name] = {
            key: round(statistics.median(one[key] for one in rounds if one[key] is not None), 3)
            for key in rounds[0]
            if any(one[key] is not None for one in rounds)
        }
        print(name, *(f"{key} {value}" for key, value in medians[name].items()), sep="\n    ")
    report = {
        "benchmark": "peers",
        "model": options.model,
        "rounds": options.rounds,
        "limit": statistics.median(limits),
    }
    report |= {"medians": medians}
    if options.out:
        options.out.write_text(json.dumps({**report, "each_round": results}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
