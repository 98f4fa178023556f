"""Does every family survive export, and what do fp16 and int8 cost and give on this CPU?

    python -m benchmarks.bench_precision --data cats_dogs resnet18 mobilenet_v3_small

Per family: top-1 agreement, largest difference, strategy, gate time, and of fp32, fp16, int8 accuracy and speed
by batch size. No weights are downloaded: the backbone is random, its batch statistics are taken from training
pictures, and the head is fitted by logistic regression on its features. That is a weak classifier with real,
unsaturated scores. Takes a folder of labelled folders; the MLP is asked about the digits of scikit-learn, as rows of
64 numbers. `--run FOLDER` adds a row for a trained run on its own validation pictures: what a lighter graph loses there
is lost by the graph, not by a classifier that is hardly better than chance. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks.bundles import MEAN, STD
from benchmarks.conditions import conditions
from taxon.bundle.manifest import PixelSpec, contract
from taxon.training.dataset import data
from taxon.training.exporting import gate, parity, tf32, variants
from taxon.training.exporting.bundling import GRAPH_FILE
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.eight_bits import eight_bits
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.examples import Example, Row
from taxon.training.exporting.graph import Served, ServedNumbers
from taxon.training.exporting.of_run import from_run
from taxon.training.exporting.providers import CPU
from taxon.training.exporting.variants import Kept
from taxon.training.network import model, networks

FAMILIES = (
    "resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny",
    "vit_b_16", "swin_t", "vgg16", "densenet121", "small_cnn", "cnn3", "resnet9_narrow", "mlp",
)  # fmt: skip
SIZES = {"small_cnn": 64, "cnn3": 64, "resnet9_narrow": 64}
TRAINING = 128
BUDGET = Budget(judged_by="estimate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled folder of pictures")
    parser.add_argument("families", nargs="*", default=FAMILIES, help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--validation", type=int, default=112, help="pictures that every graph is compared on")
    parser.add_argument("--run", type=Path, action="append", default=[], help="run folder of taxon train")
    parser.add_argument("--gate-only", action="store_true", help="no fp16, no int8, no timing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs = {run.name: run for run in options.run}
    if len({*options.families, *runs}) < len(options.families) + len(options.run):
        parser.error("two rows would have the same name")
    torch.set_num_threads(2)
    about = {"torch": torch.__version__, "simd": torch.backends.cpu.get_cpu_capability()}
    report = {"benchmark": "precision", **conditions(), **about}
    results: dict[str, dict[str, object]] = {}
    for name in (*options.families, *runs):
        candidate = from_run(runs[name]) if name in runs else fitted(name, options.data, options.validation)
        results[name] = row = measure(candidate, lighter=not options.gate_only)
        print(f"{name:20}", "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if options.out:  # after each family: a whole table takes most of an hour
            options.out.write_text(json.dumps({**report, "families": results}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({**report, "families": results}))


@dataclass(frozen=True, slots=True)
class Examples:
    """What a family is fitted to and compared on."""

    labels: tuple[str, ...]
    pixels: PixelSpec | None
    """None for rows of numbers."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: tuple[Example, ...]
    training_targets: list[int]
    validation: tuple[Example, ...]
    validation_targets: list[int]


def examples_of(family: str, folder: Path, validation_count: int) -> Examples:
    """Pictures of the folder, or for the MLP digits as rows; chosen at random, always the same ones."""
    if family == "mlp":
        digits = load_digits()
        examples: list[Example] = [Row(Path("digits"), n, row) for n, row in enumerate(digits.data.astype(np.float32))]
        targets, labels = digits.target.tolist(), tuple(map(str, digits.target_names))
        pixels, mean = None, tuple(digits.data.mean(axis=0).tolist())
        std = tuple((digits.data.std(axis=0) + 1e-3).tolist())
    else:
        found = data.scan(folder)
        examples, targets = [s.path for s in found.samples], [s.label for s in found.samples]
        labels, mean, std = found.labels, MEAN, STD
        size = SIZES.get(family, 224)
        pixels = PixelSpec(resize=round(size * 8 / 7), crop=(size, size))
    chosen = np.random.default_rng(0).permutation(len(examples))[: TRAINING + validation_count].tolist()
    training, validation = chosen[:TRAINING], chosen[TRAINING:]
    return Examples(
        labels,
        pixels,
        mean,
        std,
        tuple(examples[n] for n in training),
        [targets[n] for n in training],
        tuple(examples[n] for n in validation),
        [targets[n] for n in validation],
    )


def fitted(family: str, folder: Path, validation_count: int) -> Candidate:
    """A candidate with a random backbone and a fitted head."""
    torch.manual_seed(0)
    given = examples_of(family, folder, validation_count)
    network = model.build(family, len(given.labels), channels=len(given.mean))
    head = network.get_submodule(model.head_path(network))
    networks.set_dropout(network, 0.0)
    features: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    take_statistics(network, given)
    features.clear()
    parity.reference_logits(network, given.training, given.pixels, given.mean, given.std)
    hook.remove()
    fit_head(head, torch.cat(features).numpy(), given.training_targets, len(given.labels))
    return Candidate(
        network=network,
        labels=given.labels,
        pixels=given.pixels,
        mean=given.mean,
        std=given.std,
        files=given.validation,
        answers=tuple((given.labels[target],) for target in given.validation_targets),
        training_files=given.training,
        training_answers=tuple((given.labels[target],) for target in given.training_targets),
        run_id=family,
        data_digest="",
    )


def take_statistics(network: nn.Module, given: Examples) -> None:
    """Fills the running statistics of batch normalisation with those of real pictures."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
    network.train()
    with torch.no_grad():
        for inputs in parity.network_inputs(given.training, given.pixels, given.mean, given.std):
            network(inputs)
    network.eval()


def fit_head(head: nn.Module, features: np.ndarray, targets: list[int], class_count: int) -> None:
    center, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    regression = LogisticRegression(C=0.1, max_iter=2000).fit((features - center) / spread, targets)
    weight, bias = regression.coef_, regression.intercept_
    if class_count == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    head.weight.data = torch.from_numpy(weight).float().reshape(head.weight.shape)
    if head.bias is not None:
        head.bias.data = torch.from_numpy(bias - weight @ center).float()


def measure(candidate: Candidate, *, lighter: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GRAPH_FILE
        started = time.perf_counter()
        logits = parity.reference_logits(
            candidate.network, candidate.files, candidate.pixels, candidate.mean, candidate.std
        )
        reference_s = time.perf_counter() - started
        reference = parity.scores_of(logits, candidate.task)
        served_as = ServedNumbers if candidate.pixels is None else Served
        served = served_as(candidate.network, candidate.mean, candidate.std, candidate.task)
        names = contract(candidate.labels, candidate.pixels, candidate.task, candidate.features)
        passed = gate.climb(candidate, served, reference, names, path)
        started = time.perf_counter()
        (result,) = gate.check(path, candidate, reference)
        gate_s = time.perf_counter() - started
        in_tf32 = tf32.rows(candidate, candidate.files, candidate.task, 1.0)
        accuracy = result.accuracy or 0.0
        row: dict[str, object] = {
            "agreement": result.top1_agreement,
            "difference": float(f"{result.max_score_difference:.1e}"),
            "strategy": passed.strategy.name,
            "gate_x": round((reference_s + gate_s) / reference_s, 2),
            "tf32_difference": round(float(np.abs(in_tf32 - reference).max()), 4),
            "fp32_accuracy": round(accuracy, 3),
        }
        if not lighter:
            return row
        half = variants.half_precision(path, candidate, reference, BUDGET)
        row["fp16_accuracy"] = round(half.variant.accuracy or 0, 3) if isinstance(half, Kept) else half.reason
        quantised = eight_bits(path, candidate, reference, BUDGET)
        if isinstance(quantised, Kept):
            row["int8_accuracy"] = round(quantised.variant.accuracy or 0, 3)
            row["int8"] = quantised.note.partition("; ")[2]
        else:
            row["int8"] = f"none: {quantised.reason}"
        kept = [result.variant for result in (half, quantised) if isinstance(result, Kept)]
        paths = [path, *(path.with_name(variant.file) for variant in kept)]
        full, *lighter_ms = variants.latencies(paths, variants.timed_pictures(candidate), CPU)
        row["fp32_images_per_s"] = {size: round(1000 * size / full[size], 1) for size in full}
        for variant, latency in zip(kept, lighter_ms, strict=True):
            row[f"{variant.precision}_speed"] = {size: round(full[size] / latency[size], 2) for size in full}
    return row


if __name__ == "__main__":
    main()
