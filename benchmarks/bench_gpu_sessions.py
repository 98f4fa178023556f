"""Which options make a graph fast on a GPU? Kernel search x layout x precision x CUDA graphs, for each family.

    python -m benchmarks.bench_gpu_sessions [--provider cuda|tensorrt|cpu] [--quick] [--seconds 1]
        [--size 8]… [--search EXHAUSTIVE]… [FAMILY…]

Random weights, which cost what trained ones do. Every combination gives images per second at each batch size (the
median of several runs), how long its session took to open and to warm up, and how far its scores lie from those of
plain fp32. A combination that ONNX Runtime refuses is listed with the reason. On a CPU only the precisions remain,
which shows that the script works. The last line is one JSON object.
"""

import argparse
import itertools
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bundles import MEAN, STD
from benchmarks.conditions import conditions, tell
from taxon.bundle.manifest import BundleError
from taxon.service.runtime.device import CUDA, CUDA_GRAPHS, TENSORRT, Options, choose_device
from taxon.service.runtime.session import Session, open_session, profile

FAMILIES = ("resnet50", "resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")
QUICK_FAMILIES = ("mobilenet_v3_small",)
SIDE = 224
PRECISIONS = ("fp32", "tf32", "fp16")
SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination; what a provider does not know is empty."""

    precision: str
    search: str = ""
    nhwc: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        return " ".join([self.precision, *filter(None, [self.search, "nhwc" * self.nhwc, "graphs" * self.graphs])])

    @property
    def file(self) -> str:
        """TF32 is a way to compute fp32 graphs."""
        return "fp16" if self.precision == "fp16" else "fp32"

    def options(self, provider: str, largest: int) -> Options:
        """As ONNX Runtime takes them."""
        cuda = {
            "use_tf32": "0" if self.precision == "fp32" else "1",
            "cudnn_conv_algo_search": self.search or "EXHAUSTIVE",
            "prefer_nhwc": str(int(self.nhwc)),
            CUDA_GRAPHS: str(int(self.graphs)),
        }
        if provider == CUDA:
            return {CUDA: cuda}
        return {TENSORRT: profile("image", (SIDE, SIDE, 3), largest)} if provider == TENSORRT else {}


def settings(provider: str, searches: Sequence[str]) -> Iterator[Setting]:
    """What is worth trying; plain fp32 first."""
    if provider != CUDA:
        yield from (Setting(precision) for precision in ("fp32", "fp16"))
        return
    for precision, search, nhwc, graphs in itertools.product(PRECISIONS, searches, (False, True), (False, True)):
        yield Setting(precision, search, nhwc, graphs)


def write_graphs(family: str, folder: Path) -> dict[str, Path]:
    """An architecture with random weights, as fp32 and as fp16."""
    import torch

    from taxon.training.exporting import graph, half
    from taxon.training.network import model

    torch.manual_seed(0)
    served = graph.Served(model.build(family, 1000), MEAN, STD, "single_label").eval()
    full, lighter = folder / f"{family}.onnx", folder / f"{family}.fp16.onnx"
    graph.write_graph(served, (SIDE, SIDE, 3), full)
    half.write_half(full, lighter)
    return {"fp32": full, "fp16": lighter}


def rate(session: Session, batch: np.ndarray, seconds: float) -> float:
    """Images per second of one batch size that has been warmed."""
    spent: list[float] = []
    while sum(spent) < seconds or len(spent) < 3:
        started = time.perf_counter()
        session.run(batch)
        spent.append(time.perf_counter() - started)
    return len(batch) / statistics.median(spent)


def measured(
    graph: Path, provider: str, options: Options, batches: dict[int, np.ndarray], seconds: float
) -> tuple[dict, np.ndarray]:
    """The figures of one combination, and its scores of the smallest batch.

    Raises:
        BundleError: ONNX Runtime refuses it.
    """
    started = time.perf_counter()
    session = open_session(graph, provider, 0, options)
    opened = time.perf_counter()
    try:
        answers = [session.run(batch) for batch in batches.values()]
        warm = time.perf_counter()
        rates = {size: round(rate(session, batch, seconds), 1) for size, batch in batches.items()}
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise BundleError(str(error)) from error
    return {"open_s": round(opened - started, 2), "warm_s": round(warm - opened, 2), "images_per_s": rates}, answers[0]


def family_rows(
    family: str, provider: str, sizes: list[int], seconds: float, searches: Sequence[str]
) -> dict[str, dict]:
    """Every combination of one family."""
    random = np.random.default_rng(0)
    batches = {size: random.integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8) for size in sizes}
    rows: dict[str, dict] = {}
    plain = None
    with tempfile.TemporaryDirectory() as folder:
        graphs = write_graphs(family, Path(folder))
        for setting in settings(provider, searches):
            options = setting.options(provider, sizes[-1])
            try:
                row, scores = measured(graphs[setting.file], provider, options, batches, seconds)
            except BundleError as error:
                row = {"refused": str(error).splitlines()[0][:300]}
            else:
                plain = scores if plain is None else plain
                row["largest_difference"] = round(float(np.abs(scores - plain).max()), 6)
            rows[str(setting)] = row
            print(f"{family:20} {setting!s:34} {row}", flush=True)
    return rows


def gpu(fields: str = "name,driver_version") -> str:
    """What nvidia-smi says of every GPU; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return ""
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def best(rows: dict[str, dict], size: int) -> str:
    """The fastest combination at a batch size."""
    return max(rows, key=lambda name: rows[name].get("images_per_s", {}).get(size, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*")
    parser.add_argument("--provider", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="one family, small batches, short runs")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each batch size")
    parser.add_argument("--size", type=int, action="append", help="batch sizes; default: 1, 8, 32, 64")
    parser.add_argument("--search", action="append", choices=SEARCHES, help="of kernels; default: each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    provider = choose_device(options.provider, cuda_graphs="off", engine_cache=None).provider
    sizes = [1, 4] if options.quick else options.size or [1, 8, 32, 64]
    seconds = 0.2 if options.quick else options.seconds
    searches = SEARCHES[:1] if options.quick else options.search or SEARCHES
    found = {
        family: family_rows(family, provider, sizes, seconds, searches)
        for family in options.families or (QUICK_FAMILIES if options.quick else FAMILIES)
    }
    report = {
        "benchmark": "gpu sessions",
        "provider": provider,
        "best": {family: {size: best(rows, size) for size in sizes} for family, rows in found.items()},
        "families": found,
        "gpu": gpu(),
        **conditions(),
    }
    tell(report, options.out)


if __name__ == "__main__":
    main()
