"""The report of a run as one HTML page: first what a manager asks, then what an engineer asks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taxon.training.dataset.data import Sample
from taxon.training.reporting import pages
from taxon.training.reporting.scores import confusions
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

CONFUSIONS_SHOWN = 10


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
    per_class = sorted(figures["per_class"].items(), key=lambda item: item[1]["f1"])
    return pages.render(
        "report.html",
        title=run.folder.resolve().name,
        run=run,
        checkpoint=checkpoint,
        epoch_count=len(history),
        duration=_duration(sum(line["seconds"] for line in history)),
        figures=figures,
        weakest=per_class[0][0],
        confused=[[truth, answer, f"{count:,}", f"{share:.1%}"] for truth, answer, count, share in confused],
        folder=folder,
        plots=plots,
        classes=[_class_row(label, part) for label, part in per_class],
        slices=[_slice_row(title, part) for title, part in figures["slices"].items()],
        errors=errors,
        recipe=(run.folder / "recipe.toml").read_text(encoding="utf-8"),
    )


def _class_row(label: str, part: Mapping[str, Any]) -> list[str]:
    shares = [part[key] for key in ("precision", "recall", "f1", "average_precision")]
    return [label, *("" if share is None else f"{share:.3f}" for share in shares), f"{part['count']:,}"]


def _slice_row(title: str, part: Mapping[str, float]) -> list[str]:
    low, high = part["accuracy_low"], part["accuracy_high"]
    return [title, f"{part['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", f"{part['count']:,}"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
