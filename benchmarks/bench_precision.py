"""Does every family survive export, and what do fp16 and int8 cost and give on this CPU?

    python -m benchmarks.bench_precision --data cats_dogs resnet18 mobilenet_v3_small

Per family: top-1 agreement, largest difference, strategy, gate time, and of fp32, fp16, int8 accuracy and speed
by batch size. No weights are downloaded: the backbone is random, its batch statistics are taken from training
pictures, and the head is fitted by logistic regression on its features. That is a weak classifier with real,
unsaturated scores. Takes a folder of labelled folders. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from taxon.bundle.manifest import PixelSpec, contract
from training import model, networks
from training.dataset import data
from training.exporting import gate, parity, tf32, variants
from training.exporting.bundling import GRAPH_FILE
from training.exporting.candidate import Candidate
from training.exporting.graph import Served
from training.exporting.variants import Kept

FAMILIES = (
    "resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny",
    "vit_b_16", "swin_t", "vgg16", "densenet121", "small_cnn", "cnn3", "resnet9_narrow",
)  # fmt: skip
SIZES = {"small_cnn": 64, "cnn3": 64, "resnet9_narrow": 64}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 16
TRAINING = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled folder of pictures")
    parser.add_argument("families", nargs="*", default=FAMILIES, help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--validation", type=int, default=112, help="pictures that every graph is compared on")
    parser.add_argument("--gate-only", action="store_true", help="no fp16, no int8, no timing")
    options = parser.parse_args()
    torch.set_num_threads(2)
    results = {}
    for family in options.families:
        results[family] = row = measure(fitted(family, options.data, options.validation), lighter=not options.gate_only)
        print(f"{family:20}", "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    print(json.dumps(results))


def fitted(family: str, folder: Path, validation_count: int) -> Candidate:
    """A candidate with a random backbone and a fitted head."""
    torch.manual_seed(0)
    found = data.scan(folder)
    order = np.random.default_rng(0).permutation(len(found.samples))
    chosen = [found.samples[index] for index in order[: TRAINING + validation_count]]
    training, validation = chosen[:TRAINING], chosen[TRAINING:]
    size = SIZES.get(family, 224)
    pixels = PixelSpec(resize=round(size * 8 / 7), crop=(size, size))
    network = model.build(family, len(found.labels))
    head = network.get_submodule(model.head_path(network))
    networks.set_dropout(network, 0.0)
    features: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    files = tuple(sample.path for sample in training)
    take_statistics(network, files, pixels)
    features.clear()
    parity.reference_logits(network, files, pixels, MEAN, STD)
    hook.remove()
    fit_head(head, torch.cat(features).numpy(), [sample.label for sample in training], len(found.labels))
    return Candidate(
        network=network,
        labels=found.labels,
        pixels=pixels,
        mean=MEAN,
        std=STD,
        files=tuple(sample.path for sample in validation),
        answers=tuple((found.labels[sample.label],) for sample in validation),
        training_files=files,
        run_id=family,
        data_digest="",
    )


def take_statistics(network: nn.Module, files: tuple[Path, ...], pixels: PixelSpec) -> None:
    """Fills the running statistics of batch normalisation with those of real pictures."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
    network.train()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        for _, pictures in parity.decoded_batches(files, pixels, (BATCH,)):
            network((torch.from_numpy(pictures).movedim(-1, 1) / 255 - mean) / std)
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
        reference = parity.scores_of(logits, "single_label")
        served = Served(candidate.network, MEAN, STD, "single_label")
        names = contract(candidate.labels, candidate.pixels, "single_label")
        passed = gate.climb(candidate, served, reference, names, path)
        started = time.perf_counter()
        (result,) = gate.check(path, candidate, reference)
        gate_s = time.perf_counter() - started
        in_tf32 = tf32.scores(candidate, candidate.files, "single_label", 1.0)
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
        half = variants.half_precision(path, candidate, accuracy)
        row["fp16_accuracy"] = round(half.variant.accuracy or 0, 3) if isinstance(half, Kept) else half.reason
        eight_bits = variants.eight_bits(path, candidate, accuracy)
        if isinstance(eight_bits, Kept):
            row["int8_accuracy"] = round(eight_bits.variant.accuracy or 0, 3)
            row["int8"] = eight_bits.note.partition("; ")[2]
        else:
            row["int8"] = f"none: {eight_bits.reason}"
        kept = [result.variant for result in (half, eight_bits) if isinstance(result, Kept)]
        paths = [path, *(path.with_name(variant.file) for variant in kept)]
        full, *lighter_ms = variants.latencies(paths, variants.timed_pictures(candidate), variants.CPU)
        row["fp32_images_per_s"] = {size: round(1000 * size / full[size], 1) for size in full}
        for variant, latency in zip(kept, lighter_ms, strict=True):
            row[f"{variant.precision}_speed"] = {size: round(full[size] / latency[size], 2) for size in full}
    return row


if __name__ == "__main__":
    main()
