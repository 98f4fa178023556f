"""Which judge tells foreign pictures from known ones, and what does the one in the graph cost?

    python -m benchmarks.bench_familiarity --cats-dogs cats_dogs --photos photos --cifar cifar10 \
        --weights mobilenet_v2-imagenet.pth --work build/familiarity [--only cats_dogs] [--out FILE]
    python -m benchmarks.bench_familiarity --quick

Each pair of `foreign_pictures` is learned twice: by the head of a MobileNetV2 with published weights, and by a small
network from nothing. Every judge is fitted to training pictures, its threshold keeps 95 % of the validation pictures;
it is judged by known pictures that were held out from both, and by foreign ones: AUROC, the share of foreign pictures
that it flags, the share of known ones that it keeps, and the share that it flags where it keeps 95 % of the known ones.
`product` is the judge of `taxon export`; the cost is that of its graph over the graph without it, medians of the CPU
time of single runs in turns, on one thread. `--quick`: the digits from nothing only. Runs and features in `--work` are
used again. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from benchmarks import foreign_pictures
from benchmarks.conditions import conditions
from taxon.training.commands.train import main as train
from taxon.training.exporting import calibrate, familiarity, graph, parity
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.familiarity import centres
from taxon.training.exporting.graph import Served
from taxon.training.exporting.judge import Judged, Watched
from taxon.training.exporting.of_run import from_run

COVERAGE = 0.95
SPLITS = {"train": "data/train", "val": "data/val", "known": "known", "foreign": "foreign"}
HEAD = ("--model", "mobilenet_v2", "--mode", "head", "--epochs", "8")
FRESH = ("--model", "small_cnn", "--weights", "none", "--image-size", "32")
CASES = {
    "cats_dogs published": HEAD,
    "cats_dogs fresh": (*FRESH, "--epochs", "15"),
    "cifar published": (*HEAD, "--image-size", "96"),
    "cifar fresh": (*FRESH, "--epochs", "8"),
    "digits published": (*HEAD, "--image-size", "96"),
    "digits fresh": ("--recipe", "digits"),
}
Array = NDArray[np.float32]
Judge = Callable[[Array, Array], NDArray[np.float64] | Array]
"""Logits `[N, K]`, features `[N, D]` → `[N]`, the higher the more familiar."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cats-dogs", type=Path, help="folder with cat/ and dog/")
    parser.add_argument("--photos", type=Path, help="folder of photographs, named by ImageNet's folders")
    parser.add_argument("--cifar", type=Path, help="folder with train/ and test/, each with ten classes")
    parser.add_argument("--weights", type=Path, help="of a MobileNetV2")
    parser.add_argument("--work", type=Path, help="where folders, runs and features are kept; temporary by default")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = ["digits fresh"] if options.quick else [case for case in CASES if options.only in case]
    report = {"benchmark": "familiarity", **conditions(), "cases": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for case in chosen:
            report["cases"][case] = result = measure(case, options.work or Path(temporary), options)
            print(f"{case}: accuracy {result['accuracy']:.3f}, {result['cost']}", flush=True)
            for name, row in result["judges"].items():
                print(f"  {name:28}" + "  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)
            if options.out:
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def measure(case: str, work: Path, options: argparse.Namespace) -> dict[str, object]:
    """One pair with one network."""
    pair = case.split()[0]
    folder = {
        "cats_dogs": lambda: foreign_pictures.cats_and_dogs(work, options.cats_dogs, options.photos),
        "cifar": lambda: foreign_pictures.cifar(work, options.cifar),
        "digits": lambda: foreign_pictures.digits(work),
    }[pair]()
    candidate = from_run(trained(case, folder, work, options.weights))
    found = seen(candidate, folder, work / f"{case.replace(' ', '-')}.npz")
    right = found["known_logits"].argmax(axis=1) == [
        candidate.labels.index(path.parent.name) for path in pictures(folder / "known")
    ]
    return {
        "accuracy": round(float(right.mean()), 4),
        "pictures": {split: len(found[f"{split}_logits"]) for split in SPLITS},
        "features": found["train"].shape[1],
        "judges": {name: judged(judge, found) for name, judge in judges(found).items()},
        "cost": cost(candidate),
    }


def trained(case: str, folder: Path, work: Path, weights: Path | None) -> Path:
    """The run of a case, made if it is missing."""
    run = work / f"run-{case.replace(' ', '-')}"
    if not run.exists():
        words = ["--data", folder / "data", "--out", run, "--no-report", "--threads", 1, *CASES[case]]
        words += ["--weights", weights] if case.endswith("published") else []
        words += ["--set", f"machine.cache_folder='{work / 'cache'}'"]
        with contextlib.redirect_stdout(io.StringIO()):
            if train([str(word) for word in words]) != 0:
                raise SystemExit(f"{case}: the training failed")
    return run


def pictures(folder: Path) -> list[Path]:
    """All of them, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


@torch.inference_mode()
def seen(candidate: Candidate, folder: Path, file: Path) -> dict[str, Array]:
    """Features by split, logits by `<split>_logits`, and `train_targets`."""
    if not file.exists():
        watched, arrays = Watched(candidate.network, candidate.head or ""), {}
        for split, place in SPLITS.items():
            files = pictures(folder / place)
            inputs = parity.network_inputs(files, candidate.pixels, candidate.mean, candidate.std)
            logits, features = (torch.cat(parts)[: len(files)] for parts in zip(*map(watched, inputs), strict=True))
            arrays |= {f"{split}_logits": logits.numpy(), split: features.numpy()}
        labels = [candidate.labels.index(path.parent.name) for path in pictures(folder / SPLITS["train"])]
        np.savez(file, train_targets=labels, **arrays)
    return dict(np.load(file))


def judges(found: dict[str, Array]) -> dict[str, Judge]:
    """All that are tried, fitted to the training pictures."""
    features, targets = found["train"], found["train_targets"]
    budget = familiarity.BANK_BYTES // (4 * features.shape[1])
    sizes = sorted({size for size in (32, 64, 128, 256, budget) if size < len(features)})
    mixed = np.random.default_rng(0).permutation(len(features))
    banks = {f"k-means {size}": clustered(features, size) for size in sizes}
    tried: dict[str, Judge] = {
        "best score": lambda logits, _: softmax(logits, axis=1).max(axis=1),
        "energy": lambda logits, _: logsumexp(logits, axis=1),
        "Mahalanobis": mahalanobis(features, targets),
        **{f"nearest {k} of all": nearest(features, k) for k in (1, 5, 10, 50)},
        **{name: nearest(bank) for name, bank in banks.items()},
        f"nearest 10 of random {sizes[-1]}": nearest(features[mixed[: sizes[-1]]], 10),
        f"k-center {sizes[-1]}": nearest(k_center(features, sizes[-1])),
        "product": nearest(centres(features[mixed], int(targets.max()) + 1)),
    }
    return tried


def nearest(bank: Array, k: int = 1) -> Judge:
    """The cosine with the k-th nearest (Sun et al., ICML 2022)."""
    units = unit(bank)
    return lambda _, features: np.sort(unit(features) @ units.T, axis=1)[:, -min(k, len(units))]


def clustered(features: Array, count: int) -> Array:
    return KMeans(count, n_init=1, random_state=0).fit(unit(features)).cluster_centers_


def k_center(features: Array, count: int) -> Array:
    """Greedily, always the feature that is furthest from the bank: a coreset (Sener and Savarese, ICLR 2018)."""
    units = unit(features)
    chosen, nearness = [0], units @ units[0]
    while len(chosen) < count:
        chosen.append(int(nearness.argmin()))
        nearness = np.maximum(nearness, units @ units[chosen[-1]])
    return features[chosen]


def mahalanobis(features: Array, targets: Array) -> Judge:
    """The distance to the nearest class mean with one covariance for all (Lee et al., NeurIPS 2018)."""
    means = np.stack([features[targets == label].mean(axis=0) for label in np.unique(targets)])
    precision = np.linalg.inv(LedoitWolf().fit(features - means[targets.astype(int)]).covariance_)

    def judge(_: Array, given: Array) -> NDArray[np.float64]:
        apart = given[:, None] - means
        return -np.einsum("nkd,de,nke->nk", apart, precision, apart, optimize=True).min(axis=1)

    return judge


def unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def judged(judge: Judge, found: dict[str, Array]) -> dict[str, float]:
    """How well a judge does."""
    value = {split: judge(found[f"{split}_logits"], found[split]) for split in ("val", "known", "foreign")}
    threshold = calibrate.unknown_threshold(value["val"], COVERAGE)
    is_known = np.repeat([1, 0], [len(value["known"]), len(value["foreign"])])
    figures = {
        "auroc": roc_auc_score(is_known, np.concatenate([value["known"], value["foreign"]])),
        "flagged": (value["foreign"] < threshold).mean(),
        "kept": (value["known"] >= threshold).mean(),
        "flagged_at_95": (value["foreign"] < calibrate.unknown_threshold(value["known"], COVERAGE)).mean(),
    }
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def cost(candidate: Candidate, rounds: int = 40) -> dict[str, float]:
    """What the judge adds to the graph: bytes, and its share of a run by batch size."""
    with_judge, _ = familiarity.judged(replace(candidate, training_files=candidate.training_files[:2048]))
    assert isinstance(with_judge.network, Judged)
    with tempfile.TemporaryDirectory() as folder:
        sessions, sizes = [], []
        for number, one in enumerate((candidate, with_judge)):
            path = Path(folder, f"{number}.onnx")
            served = Served(one.network, candidate.mean, candidate.std, candidate.task)
            graph.write_graph(served, candidate.input.shape, path)
            sizes.append(path.stat().st_size)
            sessions.append(parity.open_session(path))
    figures = {"megabytes": round((sizes[1] - sizes[0]) / 1e6, 3)}
    for size in (1, 8):
        batch = np.zeros((size, *candidate.input.shape), np.uint8)
        seconds: list[list[float]] = [[], []]
        for _ in range(rounds):
            for session, times in zip(sessions, seconds, strict=True):
                times.append(one_run(session, batch))
        plain, judging = (statistics.median(times[rounds // 10 :]) for times in seconds)
        figures |= {f"ms_at_{size}": round(plain * 1e3, 3), f"share_at_{size}": round(judging / plain - 1, 4)}
    return figures


def one_run(session: onnxruntime.InferenceSession, batch: NDArray[np.uint8]) -> float:
    started = time.thread_time()  # what else the machine does counts less than on the clock
    parity.run(session, batch)
    return time.thread_time() - started


if __name__ == "__main__":
    main()
