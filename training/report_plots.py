"""The report's figures as PNG files. Drawing only: every number comes from `scores` and `runs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import metrics

from training.scores import as_matrix, reliability

INK, ACCENT, QUIET = "#22303c", "#2468a8", "#c2cbd3"
STYLE = {
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}
CURVES_NAMED = 8
"""More classes are drawn in one quiet colour under their mean."""
CELLS_NUMBERED = 20
"""Larger confusion matrices show colours only."""


def draw_all(
    folder: Path,
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    labels: Sequence[str],
    history: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Writes every figure; returns the file names in the order of the report."""
    plots = {
        "learning_curves.png": lambda: learning_curves(history),
        "confusion.png": lambda: confusion(scores, targets, labels),
        "precision_recall.png": lambda: precision_recall(scores, targets, labels),
        "roc.png": lambda: roc(scores, targets, labels),
        "reliability.png": lambda: calibration(scores, targets),
    }
    if targets.ndim == 2:
        del plots["confusion.png"]
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            plot().savefig(folder / name)
    return [*plots]


def _figure(width: float = 5.2, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))  # not pyplot's: no global state, no display
    return figure, figure.subplots()


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses and accuracy by epoch."""
    figure = Figure(figsize=(9.0, 3.4))
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    left.plot(epochs, [line["train_loss"] for line in history], color=QUIET, label="training")
    left.plot(epochs, [line["val_loss"] for line in history], color=ACCENT, label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(frameon=False)
    right.plot(epochs, [line["accuracy"] for line in history], color=ACCENT, label="accuracy")
    right.plot(epochs, [line["macro_f1"] for line in history], color=INK, linestyle=":", label="macro F1")
    right.set(xlabel="epoch", ylabel="validation")
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def confusion(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Truth by row, answer by column, shaded by the share of the row."""
    matrix = metrics.confusion_matrix(targets, scores.argmax(axis=1), labels=range(len(labels)))
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    side = min(12.0, max(3.6, 0.55 * len(labels) + 1.5))
    figure, axes = _figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(xlabel="answer", ylabel="truth")
    if len(labels) <= 2 * CELLS_NUMBERED:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= CELLS_NUMBERED:
        for row, column in np.argwhere(matrix > 0):
            shade = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=shade, fontsize=9)
    return figure


def precision_recall(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """One curve per class."""
    figure, axes = _figure()
    truth = as_matrix(targets, len(labels))
    for index, label in _present(truth, labels):
        precision, recall, _ = metrics.precision_recall_curve(truth[:, index], scores[:, index])
        area = metrics.average_precision_score(truth[:, index], scores[:, index])
        axes.plot(recall, precision, **_line(f"{label} ({area:.3f})", len(labels)))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    _legend(axes, len(labels))
    return figure


def roc(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """One curve per class against all others."""
    figure, axes = _figure()
    truth = as_matrix(targets, len(labels))
    for index, label in _present(truth, labels):
        false, true, _ = metrics.roc_curve(truth[:, index], scores[:, index])
        axes.plot(false, true, **_line(f"{label} ({metrics.auc(false, true):.3f})", len(labels)))
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.02))
    _legend(axes, len(labels))
    return figure


def _present(truth: NDArray[np.int64], labels: Sequence[str]) -> list[tuple[int, str]]:
    """Classes with samples on both sides, where curves mean something."""
    counts = truth.sum(axis=0)
    return [(index, label) for index, label in enumerate(labels) if 0 < counts[index] < len(truth)]


def _line(label: str, class_count: int) -> dict[str, Any]:
    if class_count > CURVES_NAMED:
        return {"color": ACCENT, "alpha": max(0.1, 3.0 / class_count), "linewidth": 1.2}
    return {"label": label, "linewidth": 1.4}


def _legend(axes: Axes, class_count: int) -> None:
    if class_count <= CURVES_NAMED:
        axes.legend(frameon=False, fontsize=8, loc="lower center")
    else:
        axes.set_title(f"{class_count} classes", fontsize=9, loc="right")


def calibration(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> Figure:
    """The reliability diagram with the share of answers in each bin below it."""
    found = reliability(scores, targets)
    figure = Figure(figsize=(5.2, 4.4))
    top, bottom = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    filled = found.counts > 0
    top.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    top.plot(found.confidence[filled], found.accuracy[filled], "o-", color=ACCENT, markersize=4)
    top.set(ylabel="share right", ylim=(0, 1.02))
    top.set_title(f"expected calibration error {found.error:.3f}", fontsize=9, loc="right")
    centers = (np.arange(len(found.counts)) + 0.5) / len(found.counts)
    bottom.bar(centers, found.counts / found.counts.sum(), width=0.9 / len(found.counts), color=QUIET)
    bottom.set(xlabel="score", ylabel="share", xlim=(0, 1))
    return figure
