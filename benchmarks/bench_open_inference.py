"""The Open Inference Protocol beside `Classify`: the same pictures, the same server, interleaved rounds; and memory.

    python -m benchmarks.bench_open_inference --models FOLDER --model NAME [--rounds 5] [--seconds 4]
        [--memory-requests 100000] [--perf-analyzer COMMAND]

`BYTES` and `Classify` send the encoded picture; `UINT8` sends the pixels that decoding would have given. The last line
is one JSON object: images per second of each way (median of the rounds), their ratios to `Classify`, and the memory of
all processes of the server before and after many requests. With perf_analyzer its own figure for UINT8 is added.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.bench_service import CLASSIFY, load, served
from benchmarks.processes import memory
from taxon.bench.made_pictures import photo
from taxon.bundle import store
from taxon.bundle.pixels import decode
from taxon.inference.open_inference_service_pb2 import ModelInferRequest
from taxon.service.open_inference.tensors import framed
from taxon.v1.classification_service_pb2 import ClassifyRequest

PICTURE_COUNT = 40
CALLERS = 16
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


def bodies(models: Path, name: str, folder: Path) -> dict[str, tuple[str, list[str]]]:
    """For each way in: the method, and files with serialized requests."""
    manifest = store.read(models, name, store.versions(models, name)[-1]).manifest
    files: dict[str, list[str]] = {"Classify": [], "BYTES": [], "UINT8": []}
    for index in range(PICTURE_COUNT):
        path = folder / f"{index}.jpg"
        photo(index).save(path, quality=90)
        encoded = path.read_bytes()
        pixels = decode(encoded, manifest.pixels)
        by_picture = ModelInferRequest(model_name=name, raw_input_contents=[framed([encoded])])
        by_picture.inputs.add(name="image", datatype="BYTES", shape=[1])
        by_tensor = ModelInferRequest(model_name=name, raw_input_contents=[pixels.tobytes()])
        by_tensor.inputs.add(name="image", datatype="UINT8", shape=[1, *pixels.shape])
        requests = {
            "Classify": ClassifyRequest(model_name=name, image=encoded),
            "BYTES": by_picture,
            "UINT8": by_tensor,
        }
        for way, request in requests.items():
            file = folder / f"{index}.{way}"
            file.write_bytes(request.SerializeToString())
            files[way].append(str(file))
    return {way: (CLASSIFY if way == "Classify" else MODEL_INFER, named) for way, named in files.items()}


def asked(address: str, way: tuple[str, list[str]], seconds: float) -> dict:
    """One run of the load generator."""
    path, files = way
    return load(address, files, path=path, seconds=seconds, callers=CALLERS, deadline_s=10.0)


def flatness(address: str, pid: int, ways: dict[str, tuple[str, list[str]]], count: int, rate: float) -> dict:
    """Memory after a tenth of so many requests, and after all of them; half BYTES, half UINT8."""
    share = count / 10 / 2 / rate
    megabytes = []
    for _ in range(10):
        for way in ("BYTES", "UINT8"):
            asked(address, ways[way], share)
        megabytes.append(round(memory(pid).pss_mb, 1))
    return {"mb": megabytes, "growth": round(megabytes[-1] / megabytes[0] - 1, 4)}


def perf_analyzer(command: str, address: str, model: str) -> float:
    """Its own figure for the tensor that metadata name."""
    words = f"-m {model} -i grpc -u {address} --concurrency-range {CALLERS} -a -p 3000 -s 20"
    done = subprocess.run([*shlex.split(command), *words.split()], capture_output=True, text=True, check=True)
    return float(re.findall(r"throughput: ([0-9.]+) infer/sec", done.stdout)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="The Open Inference Protocol beside Classify.")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--memory-requests", type=int, default=0)
    parser.add_argument("--perf-analyzer", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        ways = bodies(arguments.models, arguments.model, Path(made))
        rates: dict[str, list[float]] = {way: [] for way in ways}
        found: dict[str, object] = {"model": arguments.model, "rounds": arguments.rounds, "callers": CALLERS}
        flags = ["--device", "auto", "--log-level", "warning"]
        with served(arguments.models, arguments.model, flags) as (pid, address, _):
            for _ in range(arguments.rounds):
                for way, sent in ways.items():
                    said = asked(address, sent, arguments.seconds)
                    if set(said["statuses"]) != {"OK"}:
                        raise RuntimeError(f"{way}: {said['statuses']}")
                    rates[way].append(said["answered_per_s"])
                    print(way, said["answered_per_s"], "p99", said["p99_ms"], "generator", said["generator_cpu_share"])
            found["images_per_s"] = {way: round(statistics.median(measured), 1) for way, measured in rates.items()}
            found["of_classify"] = {
                way: round(statistics.median(a / b for a, b in zip(rates[way], rates["Classify"], strict=True)), 3)
                for way in ways
            }
            if arguments.perf_analyzer:
                found["perf_analyzer_uint8"] = perf_analyzer(arguments.perf_analyzer, address, arguments.model)
            if arguments.memory_requests:
                rate = statistics.median(rates["BYTES"])
                found["memory"] = flatness(address, pid, ways, arguments.memory_requests, rate)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
