"""How much faster is an epoch of the head on cached features than through the frozen backbone?

    python -m benchmarks.bench_features [--model resnet18] [--side 96]

Pictures are noise, the weights random: neither matters for time. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.bench_training import CLASSES, write_pictures
from taxon.training.commands.train import main as train
from taxon.training.network import model
from taxon.training.runs.folder import Run


def epoch_seconds(root: Path, options: argparse.Namespace, kind: str, number: int) -> float:
    """Median of the later epochs, evaluation included."""
    words = ["--data", root / "pictures", "--model", options.model, "--weights", root / "w.pth", "--mode", "head"]
    words += ["--image-size", options.side, "--epochs", "3" if kind == "live" else "10", "--features", kind]
    words += ["--out", root / f"{kind}-{number}", "--no-report", "--set", f"machine.cache_folder='{root / 'cache'}'"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert train([str(word) for word in words]) == 0
    return statistics.median(line["seconds"] for line in Run.open(root / f"{kind}-{number}").metrics()[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root / "pictures", options.count, options.side)
        torch.save(model.build(options.model, CLASSES).state_dict(), root / "w.pth")
        for number in range(options.rounds):
            live, cached = (epoch_seconds(root, options, kind, number) for kind in ("live", "cached"))
            ratios.append(live / cached)
            print(
                f"round {number + 1}: live {live:.3f} s, cached {cached:.4f} s, ratio {live / cached:.1f}", flush=True
            )
    print(json.dumps({"model": options.model, "side": options.side, "ratio": round(statistics.median(ratios), 1)}))


if __name__ == "__main__":
    main()
