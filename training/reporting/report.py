"""`report/` of a run: metrics.json, plots, model card, and one HTML page that needs nothing beside it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.atomic_files import write as write_atomically
from taxon.bundle.pixels import open_picture
from taxon.training.dataset.data import Sample
from taxon.training.loop import metrics
from taxon.training.loop.evaluate import Answers
from taxon.training.reporting import pages
from taxon.training.reporting import scores as scoring
from taxon.training.reporting.report_page import write_page
from taxon.training.reporting.report_plots import draw_all
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

ERRORS_SHOWN = 24
SIZE_SLICES = 3
LEAST_SLICE = 10
"""Smaller slices say nothing."""
LABELS_NAMED, WEAKEST_NAMED = 50, 3
"""On the model card."""


def write_report(run: Run, answers: Answers) -> dict[str, Any]:
    """Writes the report of a run's best checkpoint.

    Args:
        run: Finished.
        answers: Of the best checkpoint to the validation split, in its order.

    Returns:
        The content of `metrics.json`.

    Raises:
        OSError: Not writable.
    """
    folder = run.folder / "report"
    folder.mkdir(exist_ok=True)
    checkpoint, samples = run.checkpoint(), run.samples("val")
    figures = scoring.figures(answers.scores, answers.targets, run.labels)
    correct = metrics.right(answers.scores, answers.truth, answers.task)
    figures |= {"loss": answers.loss, "epoch": checkpoint.epoch, "slices": slices(samples, correct, run.labels)}
    write_atomically(folder / "metrics.json", json.dumps(figures, ensure_ascii=False, indent=1))
    plots = draw_all(folder, answers.scores, answers.targets, run.labels, run.metrics())
    errors = _errors(samples, answers, run.labels)
    write_atomically(folder / "model_card.md", model_card(run, checkpoint, figures))
    write_atomically(folder / "index.html", write_page(run, checkpoint, figures, folder, plots, errors))
    return figures


def slices(samples: Sequence[Sample], correct: NDArray[np.bool_], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Accuracy over parts of the data: by group or folder (if that is not the class), and by picture size.

    Parts with fewer than ten samples are left out; so is a division that has only one part.
    """
    by_source: dict[str, list[int]] = {}
    sizes = np.zeros(len(samples))
    for number, sample in enumerate(samples):
        folder = sample.path.parent.name
        by_source.setdefault(sample.group or ("" if folder in labels else folder), []).append(number)
        if sample.row < 0:
            with open_picture(sample.path) as picture:
                sizes[number] = min(picture.size)
    divisions = {f"source {name}": numbers for name, numbers in sorted(by_source.items())} if len(by_source) > 1 else {}
    if len(np.unique(sizes)) > 1:
        edges = np.quantile(sizes, np.linspace(0, 1, SIZE_SLICES + 1))
        bins = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, SIZE_SLICES - 1)
        for index in range(SIZE_SLICES):
            title = f"shorter side {edges[index]:.0f} to {edges[index + 1]:.0f}"
            divisions[title] = np.flatnonzero(bins == index).tolist()
    return {
        title: {"count": len(numbers), "accuracy": float(correct[numbers].mean())}
        for title, numbers in divisions.items()
        if len(numbers) >= LEAST_SLICE
    }


def _errors(samples: Sequence[Sample], answers: Answers, labels: Sequence[str]) -> list[tuple[Sample, str, str]]:
    """(sample, truth, answer with score) of the worst errors."""
    chosen, truth = metrics.chosen(answers.scores, answers.task), answers.truth
    found = []
    for number in scoring.worst(answers.scores, answers.targets, ERRORS_SHOWN):
        names = [f"{labels[k]} {answers.scores[number, k]:.0%}" for k in np.flatnonzero(chosen[number]).tolist()]
        right = ", ".join(labels[k] for k in np.flatnonzero(truth[number]).tolist())
        found.append((samples[number], right or "none", ", ".join(names) or "none"))
    return found


def model_card(run: Run, checkpoint: Checkpoint, figures: Mapping[str, Any]) -> str:
    """What a reader must know before using the model, as Markdown (after Mitchell et al., 2019)."""
    return pages.render(
        "model_card.md",
        run=run,
        checkpoint=checkpoint,
        figures=figures,
        counts={split: len(run.samples(split)) for split in ("train", "val", "test")},
        weakest=sorted(figures["per_class"].items(), key=lambda item: item[1]["f1"])[:WEAKEST_NAMED],
        labels_named=LABELS_NAMED,
    )
