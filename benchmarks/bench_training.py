"""What does `taxon train` cost over a bare PyTorch loop on tensors in memory? Same model, batch, threads, optimizer.

    python -m benchmarks.bench_training [--model cnn3] [--side 32] [--precision bf16]

Pictures are noise, written as PNG; the product decodes, augments (flip and crop), normalises and checks each loss;
the bare loop has normalised float tensors, shuffles indices, and does none of that. Rounds alternate, and within them
the first epoch of each warms up; the figure is the median of the ratios of the second. Take as many pictures as make
an epoch of some seconds: shorter ones measure the machine's noise. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from taxon.training.commands.train import main as train
from taxon.training.loop import optim
from taxon.training.loop.machine import Machine
from taxon.training.network import model
from taxon.training.runs.folder import Run

CLASSES = 4


def write_pictures(root: Path, count: int, side: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        split = "val" if number < 4 * CLASSES else "train"
        path = root / split / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def product_seconds(
    root: Path, name: str, side: int, batch_size: int, threads: int, precision: str, number: int
) -> float:
    words = ["--data", root / "pictures", "--model", name, "--weights", "none", "--image-size", side, "--epochs", "2"]
    words += ["--precision", precision, "--batch-size", batch_size, "--threads", threads, "--pad", "2"]
    words += ["--out", root / f"run-{number}"]
    words += ["--set", f"machine.cache_folder='{root / 'cache'}'", "--no-report"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert train([str(word) for word in words]) == 0
    return Run.open(root / f"run-{number}").metrics()[-1]["train_seconds"]  # the first epoch warms up


def bare_seconds(name: str, side: int, batch_size: int, count: int, precision: str) -> float:
    torch.manual_seed(0)
    network = model.build(name, CLASSES).to(memory_format=torch.channels_last)
    groups = optim.parameter_groups({"all": [network]}, network, lr=1e-3, weight_decay=0.01, layer_decay=1.0)
    optimizer = torch.optim.AdamW(groups)
    pictures = torch.randn(count, 3, side, side).to(memory_format=torch.channels_last)
    targets = torch.arange(count) % CLASSES
    autocast = Machine(torch.device("cpu")).autocast(precision)
    for _ in range(2):  # the first warms up
        started = time.monotonic()
        for indices in torch.randperm(count)[: count // batch_size * batch_size].split(batch_size):
            with autocast:
                logits = network(pictures[indices])
            loss = torch.nn.functional.cross_entropy(logits.float(), targets[indices])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.monotonic() - started
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--count", type=int, default=4096, help="training pictures")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root / "pictures", options.count + 4 * CLASSES, options.side)
        for number in range(options.rounds):
            network = options.model, options.side, options.batch_size
            bare = bare_seconds(*network, options.count, options.precision)
            product = product_seconds(root, *network, options.threads, options.precision, number)
            ratios.append(bare / product)
            rates.append(options.count / product)
            print(
                f"round {number + 1}: bare {bare:.2f} s, product {product:.2f} s, ratio {bare / product:.3f}",
                flush=True,
            )
    result = {"model": options.model, "side": options.side, "precision": options.precision}
    result["ratio"] = round(statistics.median(ratios), 3)
    print(json.dumps(result | {"pictures_per_second": round(statistics.median(rates), 1)}))


if __name__ == "__main__":
    main()
