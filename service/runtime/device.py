"""Where graphs run. What the wheel lists may not work, so a process of its own tries it: the server that asks never
imports ONNX Runtime.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from taxon.service.errors import StartError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
Options = Mapping[str, Mapping[str, str]]
"""ONNX Runtime's options, by execution provider."""
CUDA_GRAPHS = "enable_cuda_graph"
ENGINE_CACHE = "trt_engine_cache_path"
PROBE_TIMEOUT_S = 120.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """Where graphs run."""

    provider: str
    options: Options = field(default_factory=dict)
    """What the operator puts over every manifest's options."""
    count: int = 1
    """How many such devices work. CPUs are one. Each worker sees only its own, see `worker_process`."""
    tries_cuda_graphs: bool = False
    """Whether bundles of which CUDA cannot capture graphs are run without."""


def choose_device(
    device: Literal["auto", "cuda", "tensorrt", "cpu"],
    cuda_graphs: Literal["auto", "on", "off"],
    engine_cache: Path | None,
) -> Device:
    """What the operator's settings mean here. Blocks for seconds if there may be a GPU.

    Raises:
        StartError: `cuda` or `tensorrt` was asked for and does not work, the message holds the reason; or a setting
            is of another device.
    """
    provider, count = _choose_provider(device)
    if cuda_graphs == "on" and provider != CUDA:
        raise StartError(f"--cuda-graphs on needs CUDA, the provider is {provider}")
    if engine_cache and provider != TENSORRT:
        raise StartError(f"--engine-cache is of TensorRT, the provider is {provider}")
    if provider == CUDA:
        captures = {} if cuda_graphs == "off" else {CUDA: {CUDA_GRAPHS: "1"}}
        return Device(provider, captures, count, tries_cuda_graphs=cuda_graphs == "auto")
    return Device(provider, {TENSORRT: {ENGINE_CACHE: str(engine_cache)}} if engine_cache else {}, count)


def _choose_provider(device: Literal["auto", "cuda", "tensorrt", "cpu"]) -> tuple[str, int]:
    if device == "cpu":
        return CPU, 1
    provider = TENSORRT if device == "tensorrt" else CUDA
    found = probed(provider)
    if not found.reason:
        return provider, found.count
    if device != "auto":
        raise StartError(f"--device {device}: {found.reason}")
    if _has_library("cuda"):  # who has installed it wants it
        log.warning("CUDA does not work, serving on the CPU", reason=found.reason)
    else:
        log.info("serving on the CPU", reason=found.reason)
    return CPU, 1


@dataclass(frozen=True, slots=True)
class Probed:
    """What trying a provider has shown."""

    count: int
    """Devices that work."""
    reason: str = ""
    """Why none does."""


def probed(provider: str) -> Probed:
    """Tries a provider, in a process of its own if the installed wheel brings it at all."""
    kind = "TensorRT" if provider == TENSORRT else "CUDA"
    if not _has_library(kind.lower()):
        return Probed(0, f"this onnxruntime has no {kind} support: install the extra gpu instead of cpu")
    words = [sys.executable, "-P", "-m", "taxon.service.runtime.device_probe", provider]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Probed(0, f"{kind} did not start within {PROBE_TIMEOUT_S:g} s")
    if done.returncode:
        return Probed(0, f"the process that tried {kind} ended with status {done.returncode}: see its log above")
    return Probed(**json.loads(done.stdout.splitlines()[-1]))


def _has_library(kind: str) -> bool:
    """Whether the installed wheel brings its provider `kind`, told without loading the wheel."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found.submodule_search_locations if found else None) or []
    return any(any(Path(folder, "capi").glob(f"*onnxruntime_providers_{kind}*")) for folder in folders)
