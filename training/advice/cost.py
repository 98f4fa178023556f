"""What a backbone costs when it is served: its graph's latency and memory on this machine, measured in a process of its
own, on as many threads as the service gives a worker.
"""

import multiprocessing
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from taxon.training.advice.candidates import Backbone
from taxon.training.errors import TrainingError
from taxon.training.exporting import half, parity, variants
from taxon.training.exporting.graph import LADDER, GraphError, Served, write_graph
from taxon.training.exporting.providers import CPU, CUDA

SERVED_THREADS = 1
"""Of a worker on a CPU: the service runs one for each core."""


Result = TypeVar("Result")
ROUNDS = 3
"""In which all candidates are timed in turn: a machine that is busy for a while is so for all of them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one backbone in the variant that would be served."""

    provider: str
    precision: str
    latency_ms: dict[int, float]
    """Of one run, by batch size: the median of the least disturbed round; decoding and queueing not included."""
    slowest_ms: dict[int, float]
    """As `latency_ms`, of the most disturbed round."""
    memory_mib: float
    """By which a process of the host grows that loads the graph and runs it, up to the largest of these batches."""
    file_mib: float


def write(backbone: Backbone, path: Path, provider: str) -> str:
    """Exports a backbone under its head, as it would be served.

    Args:
        backbone: With a head for the classes of the data; its network is left on the CPU.
        path: Of the graph.
        provider: ONNX Runtime's, of the device that serves.

    Returns:
        The precision.

    Raises:
        TrainingError: It cannot be exported.
    """
    preprocessing = backbone.preprocessing
    if preprocessing.pixels is None:
        raise TrainingError(f"{backbone.name} takes no pictures")
    served = Served(backbone.network.cpu(), preprocessing.mean, preprocessing.std, "single_label")
    for strategy in LADDER:
        try:
            write_graph(served, preprocessing.pixels.shape, path, strategy)
            break
        except GraphError as error:
            failure = error
    else:
        raise failure
    if provider != CUDA:
        return "fp32"
    half.write_half(path, path)
    return "fp16"


def measure(path: Path, provider: str, precision: str) -> Cost:
    """Measures a graph once, in a new process, for its memory.

    Raises:
        TrainingError: It does not run.
    """
    latency, memory = _elsewhere(_run, path, provider)
    return Cost(provider, precision, latency, latency, memory, path.stat().st_size / 2**20)


def measure_again(paths: Sequence[Path], costs: Sequence[Cost]) -> list[Cost]:
    """Times graphs in more rounds, in turn.

    Args:
        paths: The graphs.
        costs: What `measure` found of each.

    Raises:
        TrainingError: One does not run any longer.
    """
    timings = _elsewhere(_time_in_turn, paths, [cost.provider for cost in costs], ROUNDS - 1)
    found = []
    for cost, rounds in zip(costs, timings, strict=True):
        by_size = {size: [cost.latency_ms[size], *(one[size] for one in rounds)] for size in cost.latency_ms}
        fastest, slowest = ({size: end(times) for size, times in by_size.items()} for end in (min, max))
        found.append(replace(cost, latency_ms=fastest, slowest_ms=slowest))
    return found


def _elsewhere(work: Callable[..., Result], *arguments: object) -> Result:
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            return alone.submit(work, *arguments).result()
    except BrokenProcessPool as error:
        raise TrainingError("the process that measured it died, for want of memory perhaps") from error


def _run(path: Path, provider: str) -> tuple[dict[int, float], float]:
    """Median milliseconds by batch size, and the MiB by which this process grows."""
    before = _resident_mib()
    latency = _timed(path, provider)
    return latency, max(0.0, _resident_mib() - before)


def _time_in_turn(paths: Sequence[Path], providers: Sequence[str], rounds: int) -> list[list[dict[int, float]]]:
    found: list[list[dict[int, float]]] = [[] for _ in paths]
    for _ in range(rounds):
        for path, provider, times in zip(paths, providers, found, strict=True):
            times.append(_timed(path, provider))
    return found


def _timed(path: Path, provider: str) -> dict[int, float]:
    torch.set_num_threads(SERVED_THREADS)  # what sessions take their number from
    session = parity.open_session(path, provider)
    shape = session.get_inputs()[0].shape[1:]
    pictures = np.random.default_rng(0).integers(0, 256, (max(variants.TIMED_BATCHES), *shape), dtype=np.uint8)
    return variants.timed([session], pictures)[0]


def _resident_mib() -> float:
    """What this process holds now; where that cannot be asked, the most it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on a Mac
    return pages * resource.getpagesize() / 2**20


def provider_for(device: str) -> str:
    """ONNX Runtime's name of a device, which works here.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        TrainingError: It does not work here.
    """
    found = parity.providers()
    if device == "auto":
        return found[0]
    wanted = CUDA if device == "cuda" else CPU
    if wanted not in found:
        raise TrainingError(f"--device {device}: ONNX Runtime has no {wanted} that works here, only {', '.join(found)}")
    return wanted
