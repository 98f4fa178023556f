"""What keeps a GPU waiting between two batches: stacking the inputs, copying them over, answers on their way back?

    python -m benchmarks.bench_gpu_overlap [--provider cuda|cpu] [--model resnet50] [--size 64]… [--seconds 1]

One session, batches of one size, in ways that differ in what lies between two runs; images per second of each, as the
median of interleaved rounds. The last line is one JSON object.

    run             arrays that are stacked already, one after the other
    stack, run      each batch is stacked before it is run, as a worker without overlap does
    stack | run     one thread stacks the next batch while another runs
    stack | run x2  two threads run, so that copies of one batch pass beside the kernels of another
    bound           the input lies on the device: what the kernels alone take, and the answers' way back
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import bundles
from benchmarks.bench_gpu_sessions import gpu
from benchmarks.conditions import conditions, tell
from taxon.bundle import store
from taxon.service.runtime.device import CUDA, choose_device
from taxon.service.runtime.session import Session, import_onnxruntime, open_session

Arrays = list[NDArray[np.uint8]]
ROUNDS = 3


def stacked(arrays: Arrays) -> NDArray[np.uint8]:
    """As `runtime.batch_run` does."""
    batch = np.zeros((len(arrays), *arrays[0].shape), np.uint8)
    np.stack(arrays, out=batch)
    return batch


def rate(step: Callable[[], object], count: int, seconds: float) -> float:
    """Images per second of a step of so many."""
    step()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        done += count
    return done / (time.perf_counter() - started)


def overlapped(session: Session, arrays: Arrays, runners: int) -> Callable[[], object]:
    """A step that stacks, while `runners` threads run what was stacked before."""
    pool, under_way = ThreadPoolExecutor(runners), list[Future]()

    def step() -> None:
        batch = stacked(arrays)
        if len(under_way) == runners:
            under_way.pop(0).result()
        under_way.append(pool.submit(session.run, batch))

    return step


def bound(session: Session, onnxruntime: object, batch: NDArray[np.uint8], device: str) -> Callable[[], object]:
    """A step whose input is on the device already."""
    raw = session._session  # noqa: SLF001 - looks below what the service uses
    value = onnxruntime.OrtValue.ortvalue_from_numpy(batch, device, 0)
    binding = raw.io_binding()
    binding.bind_ortvalue_input(session.inputs[0].name, value)
    for output in session.outputs:
        binding.bind_output(output.name, "cpu")

    def step() -> None:
        raw.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--size", type=int, action="append", help="default: 8, 32, 64")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    provider = choose_device(options.provider, cuda_graphs="off", engine_cache=None).provider
    random = np.random.default_rng(0)
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as made:
        bundles.build(Path(made), options.model, half_too=True)
        bundle = store.read(Path(made), options.model, 1)
        (variant,) = [variant for variant in bundle.manifest.variants if variant.precision == options.precision]
        session = open_session(bundle.folder / variant.file, provider, 0, {})
        for size in options.size or [8, 32, 64]:
            arrays = [random.integers(0, 256, bundle.manifest.input.shape, dtype=np.uint8) for _ in range(size)]
            batch, device = stacked(arrays), "cuda" if provider == CUDA else "cpu"
            ways: dict[str, Callable[[], object]] = {
                "run": lambda batch=batch: session.run(batch),
                "stack, run": lambda arrays=arrays: session.run(stacked(arrays)),
                "stack | run": overlapped(session, arrays, 1),
                "stack | run x2": overlapped(session, arrays, 2),
                "bound": bound(session, import_onnxruntime(provider), batch, device),
            }
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, step in ways.items():
                    rates[name].append(rate(step, size, options.seconds / ROUNDS))
            found[size] = {name: round(statistics.median(each), 1) for name, each in rates.items()}
            print(size, found[size], flush=True)
    report = {
        "benchmark": "gpu overlap",
        "model": options.model,
        "precision": options.precision,
        "provider": provider,
        "images_per_s": found,
        "gpu": gpu(),
        **conditions(),
    }
    tell(report, options.out)


if __name__ == "__main__":
    main()
