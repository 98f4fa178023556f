"""The report of a run as one HTML page: first what a manager asks, then what an engineer asks."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taxon.training.dataset.data import Sample
from taxon.training.reporting import pages
from taxon.training.reporting.scores import confusions
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

CONFUSIONS_SHOWN = 10
PLOTS = {
    "learning_curves.png": (
        "Learning curves",
        "By epoch. A validation loss that rises while the training loss falls means that pictures are learnt by heart.",
    ),
    "confusion.png": ("Confusion matrix", "Each row is what pictures show, each column what the network says."),
    "reliability.png": (
        "Reliability of the scores",
        "Of the answers with a score of 0.8, eight in ten should be right: on the dotted line scores can be read as "
        "probabilities. Below: how many answers have each score.",
    ),
    "precision_recall.png": (
        "Precision and recall",
        "For every threshold on a class's score: how many of its pictures are found, and how many of those found are "
        "of the class. In brackets the average precision.",
    ),
    "roc.png": (
        "ROC",
        "For every threshold: how many of a class's pictures are found, and how many of the others are taken for it. "
        "In brackets the area.",
    ),
}
"""In this order: heading and how to read it."""
SIDE_BY_SIDE = ("reliability.png", "precision_recall.png", "roc.png")


def write_page(
    run: Run,
    checkpoint: Checkpoint,
    figures: Mapping[str, Any],
    folder: Path,
    plots: Sequence[str],
    errors: Sequence[tuple[Sample, str, str]],
) -> str:
    """The page.

    Args:
        run: Finished.
        checkpoint: Its best.
        figures: The content of metrics.json.
        folder: Where the plots are.
        plots: Which there are.
        errors: (sample, truth, answer with score) of the worst errors.
    """
    history = run.metrics()
    confused = confusions(figures["confusion"], run.labels)[:CONFUSIONS_SHOWN] if "confusion" in figures else []
    parts = [
        f"<p class=quiet>{html.escape(checkpoint.model)}, {len(run.labels):,} classes, best of {len(history)} epochs: "
        f"{checkpoint.epoch}; trained in {_duration(sum(line['seconds'] for line in history))}</p>",
        f"<p class=lead>{_lead(figures, confused)}</p>",
        pages.tiles(_tiles(figures)),
        pages.plot(folder / "learning_curves.png", *PLOTS["learning_curves.png"]),
    ]
    if confused:
        rows = [[truth, answer, f"{count:,}", f"{share:.1%}"] for truth, answer, count, share in confused]
        parts.append("<h2>Most frequent confusions</h2>")
        parts.append(pages.table(["shows", "taken for", "pictures", "share of the class"], rows, names=2))
    if "confusion.png" in plots:
        parts.append(pages.plot(folder / "confusion.png", *PLOTS["confusion.png"]))
    parts += ["<h2>Classes, the weakest first</h2>", _classes(figures["per_class"])]
    if figures["slices"]:
        rows = [[name, f"{part['accuracy']:.1%}", f"{part['count']:,}"] for name, part in figures["slices"].items()]
        parts += ["<h2>Parts of the data</h2>", pages.table(["part", "accuracy", "samples"], rows)]
    parts.append("<div class=plots>")
    parts += [pages.plot(folder / name, *PLOTS[name]) for name in SIDE_BY_SIDE]
    parts.append("</div>")
    if errors:
        parts.append("<h2>Worst errors</h2><p class=quiet>Where a score was furthest from the truth; the answer in ")
        parts.append("bold. Some may be wrong labels.</p><div class=grid>")
        parts += [_error(*error) for error in errors]
        parts.append("</div>")
    recipe = html.escape((run.folder / "recipe.toml").read_text(encoding="utf-8"))
    parts.append(
        f"<h2>Origin</h2><p>Run {html.escape(run.id)}, {run.facts['created']}, seed {run.facts['seed']}, data "
        f"{run.data_digest[:16]}.</p><details><summary>Recipe</summary><pre>{recipe}</pre></details>"
    )
    return pages.page(run.folder.resolve().name, parts)


def _lead(figures: Mapping[str, Any], confused: Sequence[tuple[str, str, int, float]]) -> str:
    label, part = min(figures["per_class"].items(), key=lambda item: item[1]["f1"])
    lead = (
        f"{'Wholly right' if 'confusion' not in figures else 'Right'} on <b>{figures['accuracy']:.1%}</b> of "
        f"{figures['sample_count']:,} validation samples (95 % interval {figures['accuracy_low']:.1%} to "
        f"{figures['accuracy_high']:.1%}). "
        f"The weakest class is {html.escape(label)}: {part['recall']:.0%} of it are found, and {part['precision']:.0%} "
        "of what is called so is so."
    )
    if confused:
        truth, answer, count, _ = confused[0]
        lead += f" Most often {html.escape(truth)} is taken for {html.escape(answer)}: {count:,} times."
    return lead


def _tiles(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"{figures['accuracy']:.1%}", "accuracy"),
        (f"{figures['balanced_accuracy']:.1%}", "balanced accuracy"),
        (f"{figures['macro_f1']:.3f}", "macro F1"),
        (f"{figures['mean_average_precision']:.3f}", "mean average precision"),
        (f"{figures['expected_calibration_error']:.3f}", "expected calibration error"),
        (f"{figures['sample_count']:,}", "validation samples"),
    ]


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            label,
            *("" if part[key] is None else f"{part[key]:.3f}" for key in ("precision", "recall", "f1")),
            "" if part["average_precision"] is None else f"{part['average_precision']:.3f}",
            f"{part['count']:,}",
        ]
        for label, part in sorted(per_class.items(), key=lambda item: item[1]["f1"])
    ]
    return pages.table(["class", "precision", "recall", "F1", "average precision", "samples"], rows)


def _error(sample: Sample, truth: str, answer: str) -> str:
    caption = f"<b>{html.escape(answer)}</b><br>is {html.escape(truth)}<br>{html.escape(sample.path.name)}"
    if sample.row >= 0:
        return f"<figure><figcaption>{caption}, row {sample.row + 1}</figcaption></figure>"
    return pages.picture(sample.path, caption)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
