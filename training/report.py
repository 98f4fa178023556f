"""`report/` of a run: metrics.json, plots, model card, and one HTML page that needs nothing beside it."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training import scores as scoring
from training.checkpoint import Checkpoint
from training.data import Sample
from training.evaluate import Answers
from training.files import write_atomically
from training.report_plots import draw_all
from training.runs import Run

ERRORS_SHOWN = 24
THUMBNAIL = 120
SIZE_SLICES = 3
LEAST_SLICE = 10
"""Smaller slices say nothing."""
TITLES = {
    "learning_curves.png": "Learning curves",
    "confusion.png": "Confusion matrix",
    "precision_recall.png": "Precision and recall",
    "roc.png": "ROC",
    "reliability.png": "Reliability of the scores",
}
CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#22303c;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #dde3e8}
.quiet{color:#6b7a87}.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.tile{background:#f3f6f8;border-radius:6px;padding:.6rem 1rem}.tile b{display:block;font-size:1.4rem}
table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e8edf1}
td:first-child,th:first-child{text-align:left}img.plot{max-width:100%}
.grid{display:flex;flex-wrap:wrap;gap:.8rem}.grid figure{margin:0;width:130px;font-size:.8rem;overflow-wrap:anywhere}
.grid img{width:120px;height:120px;object-fit:contain;background:#f3f6f8;image-rendering:auto}
"""


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
    correct = scoring.right(answers.scores, answers.targets)
    figures |= {"loss": answers.loss, "epoch": checkpoint.epoch, "slices": slices(samples, correct, run.labels)}
    write_atomically(folder / "metrics.json", json.dumps(figures, ensure_ascii=False, indent=1))
    plots = draw_all(folder, answers.scores, answers.targets, run.labels, run.metrics())
    errors = _errors(samples, answers, run.labels)
    write_atomically(folder / "model_card.md", model_card(run, checkpoint, figures))
    write_atomically(folder / "index.html", _page(run, checkpoint, figures, folder, plots, errors))
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
            with Image.open(sample.path) as picture:
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
    chosen = scoring.chosen(answers.scores, answers.targets)
    truth = scoring.as_matrix(answers.targets, len(labels))
    found = []
    for number in scoring.worst(answers.scores, answers.targets, ERRORS_SHOWN):
        names = [f"{labels[k]} {answers.scores[number, k]:.0%}" for k in np.flatnonzero(chosen[number])]
        right = ", ".join(labels[k] for k in np.flatnonzero(truth[number]))
        found.append((samples[number], right or "none", ", ".join(names) or "none"))
    return found


def model_card(run: Run, checkpoint: Checkpoint, figures: Mapping[str, Any]) -> str:
    """What a reader must know before using the model, as Markdown (after Mitchell et al., 2019)."""
    counts = {split: len(run.samples(split)) for split in ("train", "val", "test")}
    weakest = sorted(figures["per_class"].items(), key=lambda item: item[1]["f1"])[:3]
    shape = f"{checkpoint.pixels.shape[1]}x{checkpoint.pixels.shape[0]} pixels" if checkpoint.pixels else "numbers"
    return "\n".join(
        [
            f"# {run.folder.resolve().name}",
            "",
            f"{checkpoint.model}, {len(run.labels)} classes, input {shape}, {checkpoint.task.replace('_', ' ')}.",
            "",
            "## Use",
            "",
            f"Tells apart: {', '.join(run.labels)}. Pictures of anything else get one of these labels too.",
            "",
            "## Data",
            "",
            f"{counts['train']} samples trained it, {counts['val']} validated it"
            + (f", {counts['test']} were not used" if counts["test"] else "")
            + f". Data digest `{run.data_digest[:16]}`.",
            "The figures are of the split that also chose the epoch, so they are a little too good.",
            "",
            "## Quality",
            "",
            f"- accuracy {figures['accuracy']:.2%} (95 % interval {figures['accuracy_low']:.2%} to "
            f"{figures['accuracy_high']:.2%})",
            f"- balanced accuracy {figures['balanced_accuracy']:.2%}, macro F1 {figures['macro_f1']:.4f}",
            f"- expected calibration error {figures['expected_calibration_error']:.3f}",
            "- weakest classes: " + ", ".join(f"{label} (F1 {part['f1']:.3f})" for label, part in weakest),
            "",
            "## Origin",
            "",
            f"Run `{run.id}`, {run.facts['created']}, seed {run.facts['seed']}, code {run.facts['git'] or 'unknown'}.",
            "",
        ]
    )


def _page(
    run: Run,
    checkpoint: Checkpoint,
    figures: Mapping[str, Any],
    folder: Path,
    plots: Sequence[str],
    errors: Sequence[tuple[Sample, str, str]],
) -> str:
    tiles = [
        (f"{figures['accuracy']:.2%}", f"accuracy ({figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%})"),
        (f"{figures['balanced_accuracy']:.2%}", "balanced accuracy"),
        (f"{figures['macro_f1']:.4f}", "macro F1"),
        (f"{figures['mean_average_precision']:.4f}", "mean average precision"),
        (f"{figures['expected_calibration_error']:.3f}", "calibration error"),
        (f"{figures['sample_count']}", "validation samples"),
    ]
    title = html.escape(run.folder.resolve().name)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{CSS}</style>",
        f"<h1>{title}</h1><p class=quiet>{html.escape(checkpoint.model)}, best epoch {checkpoint.epoch}, run "
        f"{html.escape(run.id)}, data {run.data_digest[:12]}</p>",
        "<div class=tiles>",
        *(f"<div class=tile><b>{value}</b>{html.escape(name)}</div>" for value, name in tiles),
        "</div>",
        "<h2>Classes</h2>",
        _table(
            ["class", "precision", "recall", "F1", "average precision", "samples"],
            [
                [label, *(_number(part[key]) for key in ("precision", "recall", "f1", "average_precision", "count"))]
                for label, part in figures["per_class"].items()
            ],
        ),
    ]
    if figures["slices"]:
        rows = [[name, _number(part["accuracy"]), str(part["count"])] for name, part in figures["slices"].items()]
        parts += ["<h2>Parts of the data</h2>", _table(["part", "accuracy", "samples"], rows)]
    for name in plots:
        encoded = base64.b64encode((folder / name).read_bytes()).decode()
        parts.append(
            f'<h2>{TITLES[name]}</h2><img class=plot alt="{TITLES[name]}" src="data:image/png;base64,{encoded}">'
        )
    if errors:
        parts.append("<h2>Worst errors</h2><div class=grid>")
        parts += [_error_figure(*error) for error in errors]
        parts.append("</div>")
    recipe = html.escape((run.folder / "recipe.toml").read_text(encoding="utf-8"))
    parts.append(f"<h2>Recipe</h2><pre>{recipe}</pre></html>")
    return "\n".join(parts)


def _error_figure(sample: Sample, truth: str, answer: str) -> str:
    caption = (
        f"<b>{html.escape(answer)}</b><br>is {html.escape(truth)}<br><span class=quiet>{html.escape(sample.path.name)}"
    )
    if sample.row >= 0:
        return f"<figure>{caption}, row {sample.row + 1}</span></figure>"
    return f'<figure><img alt="" src="{thumbnail(sample.path)}">{caption}</span></figure>'


def thumbnail(path: Path) -> str:
    """A picture as a data URL, at most 120 pixels long; small ones are enlarged so that they can be seen."""
    with Image.open(path) as picture:
        small = ImageOps.exif_transpose(picture).convert("RGB")
    scale = THUMBNAIL / max(small.size)
    size = tuple(max(1, round(side * scale)) for side in small.size)
    small = small.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table><tr>", *(f"<th>{html.escape(name)}" for name in head), "</tr>"]
    for row in rows:
        lines += ["<tr>", *(f"<td>{html.escape(field)}" for field in row), "</tr>"]
    return "".join([*lines, "</table>"])


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
