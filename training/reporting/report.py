"""`report/` of a run: metrics.json, plots, model card, and one HTML page that needs nothing beside it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.atomic_files import write as write_atomically
from taxon.training.dataset.data import Sample
from taxon.training.dataset.slices import Slice, looks, slices
from taxon.training.loop import metrics
from taxon.training.loop.evaluate import Answers
from taxon.training.loop.significance import wilson
from taxon.training.reporting import pages
from taxon.training.reporting import scores as scoring
from taxon.training.reporting.report_page import write_page
from taxon.training.reporting.report_plots import draw_all
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

ERRORS_SHOWN = 24
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
    parts = slices(samples, run.labels, looks(samples, checkpoint.pixels))
    figures |= {"loss": answers.loss, "epoch": checkpoint.epoch, "slices": figures_of(parts, correct)}
    write_atomically(folder / "metrics.json", json.dumps(figures, ensure_ascii=False, indent=1))
    plots = draw_all(folder, answers.scores, answers.targets, run.labels, run.metrics())
    errors = _errors(samples, answers, run.labels)
    write_atomically(folder / "model_card.md", model_card(run, checkpoint, figures))
    write_atomically(folder / "index.html", write_page(run, checkpoint, figures, folder, plots, errors))
    return figures


def figures_of(parts: Sequence[Slice], correct: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Count and accuracy of every slice, the accuracy with its interval."""
    found = {}
    for part in parts:
        count, right = len(part.numbers), int(correct[part.numbers].sum())
        low, high = wilson(right, count)
        found[part.title] = {
            "count": count,
            "accuracy": right / count,
            "accuracy_low": low,
            "accuracy_high": high,
        }
    return found


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
        weakest_slices=sorted(figures["slices"].items(), key=lambda item: item[1]["accuracy_high"])[:WEAKEST_NAMED],
        labels_named=LABELS_NAMED,
    )
