"""The report's figures as PNG files. Drawing only: every number comes from `scores` and `runs`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, confusion_matrix, precision_recall_curve, roc_curve

from taxon.training.loop import metrics

INK, ACCENT, QUIET = "#22303c", "#2468a8", "#c2cbd3"
COLORS = ("#2468a8", "#d1662b", "#3d8f5a", "#a13d6b", "#8a6d1c", "#5b4aa0", "#17808a", "#6b7a87")
"""Told apart in print and by most of the colour-blind."""
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}
CURVES_NAMED, WEAKEST_NAMED = 8, 3
"""Of more classes only the weakest curves are named."""
CELLS_NUMBERED, CLASSES_NAMED = 20, 100
"""Larger confusion matrices show colours only; still larger ones no names."""
EPOCHS_MARKED = 20
GRID = 201
NAME_LENGTH = 24


def draw_all(
    folder: Path,
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    labels: Sequence[str],
    history: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Writes every figure; returns the file names in the order of the report."""
    plots: dict[str, Callable[[], Figure]] = {
        "learning_curves.png": lambda: learning_curves(history),
        "confusion.png": lambda: confusion(scores, targets, labels),
        "precision_recall.png": lambda: precision_recall(scores, targets, labels),
        "roc.png": lambda: roc(scores, targets, labels),
        "reliability.png": lambda: calibration(scores, targets),
    }
    if targets.ndim == 2:
        del plots["confusion.png"]
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a name in a script that the font lacks; the page has it whole
        for name, plot in plots.items():
            plot().savefig(folder / name)
    return [*plots]


def _figure(width: float = 5.2, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))  # not pyplot's: no global state, no display
    return figure, figure.subplots()


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses and accuracy by epoch, as far as it was evaluated; a line where another phase begins."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    marker = "o" if len(history) <= EPOCHS_MARKED else ""
    for axes, key, color, label in (
        (left, "train_loss", QUIET, "training"),
        (left, "val_loss", ACCENT, "validation"),
        (right, "accuracy", ACCENT, "accuracy"),
        (right, "macro_f1", INK, "macro F1"),
    ):
        style = ":" if key == "macro_f1" else "-"
        points = [(line["epoch"], line[key]) for line in history if key in line]  # not every epoch is evaluated
        axes.plot(*zip(*points, strict=True), style, color=color, label=label, marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="on the validation split")
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (left, right):
        for before, after in pairwise(history):
            if before["phase"] != after["phase"]:
                axes.axvline(before["epoch"] + 0.5, color=QUIET, linestyle="--", linewidth=1)
                axes.text(before["epoch"] + 0.5, 1.01, after["phase"], transform=axes.get_xaxis_transform(), fontsize=8)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def confusion(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Truth by row, answer by column, shaded by the share of the row."""
    matrix = confusion_matrix(targets, scores.argmax(axis=1), labels=range(len(labels)))
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    side = min(11.0, max(3.2, 0.5 * len(labels) + 1.5))
    figure, axes = _figure(side, side)
    # Many classes: the root of the share, or confusions would be too pale to see.
    shade = PowerNorm(0.5 if len(labels) > CELLS_NUMBERED else 1.0, vmin=0.0, vmax=1.0)
    drawn = axes.imshow(shares, cmap="Blues", norm=shade, interpolation="nearest")
    axes.set(xlabel="the network says", ylabel="the picture shows")
    if len(labels) <= CLASSES_NAMED:
        size = min(10.0, 0.55 * 72.0 * side / len(labels))
        names = [_plain(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=45 if len(labels) <= CELLS_NUMBERED else 90, fontsize=size)
        axes.set_yticks(range(len(labels)), names, fontsize=size)
        for tick in axes.get_xticklabels() if len(labels) <= CELLS_NUMBERED else []:
            tick.set(ha="right", rotation_mode="anchor")
    if len(labels) <= CELLS_NUMBERED:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=color, fontsize=9)
    else:
        bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02, format=PercentFormatter(1.0))
        bar.outline.set_visible(False)
        bar.set_label("share of the row")
    return figure


def precision_recall(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """One curve per class."""
    truth = metrics.as_truth(targets, len(labels))
    curves = []
    for index, label in _present(truth, labels):
        precision, recall, _ = precision_recall_curve(truth[:, index], scores[:, index])
        area = float(average_precision_score(truth[:, index], scores[:, index]))
        curves.append(Curve(label, area, recall[::-1], precision[::-1]))
    figure, axes = _figure()
    _draw_curves(axes, curves)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    return figure


def roc(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """One curve per class against all others."""
    truth = metrics.as_truth(targets, len(labels))
    curves = []
    for index, label in _present(truth, labels):
        false, true, _ = roc_curve(truth[:, index], scores[:, index])
        curves.append(Curve(label, float(auc(false, true)), false, true))
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    _draw_curves(axes, curves)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.02))
    return figure


@dataclass(frozen=True, slots=True)
class Curve:
    """Of one class; x ascends."""

    label: str
    area: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """All by name if they are few; else the weakest by name, and the mean over the others in a quiet colour."""
    if len(curves) <= CURVES_NAMED:
        for curve in curves:
            axes.plot(curve.x, curve.y, linewidth=1.4, label=f"{_plain(curve.label)} ({curve.area:.3f})")
    else:
        grid = np.linspace(0.0, 1.0, GRID)
        heights = [np.interp(grid, curve.x, curve.y) for curve in curves]
        for height in heights:
            axes.plot(grid, height, color=QUIET, linewidth=0.8, alpha=max(0.1, min(1.0, 20.0 / len(curves))))
        for number in np.argsort([curve.area for curve in curves])[:WEAKEST_NAMED]:
            name = f"{_plain(curves[number].label)} ({curves[number].area:.3f})"
            axes.plot(grid, heights[number], linewidth=1.2, label=name)
        mean = np.mean([curve.area for curve in curves])
        axes.plot(grid, np.mean(heights, axis=0), color=INK, linewidth=2, label=f"mean of {len(curves)} ({mean:.3f})")
    if curves:
        axes.legend(frameon=False, fontsize=8, loc="lower center")


def _plain(label: str) -> str:
    """A class name as matplotlib draws it literally, and not longer than there is room for."""
    cut = label if len(label) <= NAME_LENGTH else f"{label[: NAME_LENGTH - 1]}…"
    return f" {cut}".replace("$", r"\$")  # a dollar begins a formula; a name beginning with _ would be left out


def _present(truth: NDArray[np.bool_], labels: Sequence[str]) -> list[tuple[int, str]]:
    """Classes with samples on both sides, where curves mean something."""
    counts = truth.sum(axis=0)
    return [(index, label) for index, label in enumerate(labels) if 0 < counts[index] < len(truth)]


def calibration(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> Figure:
    """The reliability diagram with the share of answers in each bin below it."""
    found = metrics.reliability(scores, metrics.as_truth(targets, scores.shape[1]), metrics.task_of(targets))
    figure = Figure(figsize=(5.2, 4.4))
    top, bottom = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    filled = found.counts > 0
    top.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    top.plot(found.confidence[filled], found.accuracy[filled], "o-", color=ACCENT, markersize=4)
    top.set(ylabel="share of right answers", ylim=(0, 1.02))
    top.set_title(f"expected calibration error {found.error:.3f}", fontsize=9, loc="right")
    centers = (np.arange(len(found.counts)) + 0.5) / len(found.counts)
    bottom.bar(centers, found.counts / found.counts.sum(), width=0.9 / len(found.counts), color=QUIET)
    bottom.set(xlabel="score", ylabel="answers", xlim=(0, 1))
    for axis in (top.yaxis, bottom.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure
