"""The advice as one HTML page with its plots, and as JSON."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from taxon.bundle import atomic_files
from taxon.training.advice.candidates import LeftOut
from taxon.training.advice.choose import Judged, Recommendation, pareto
from taxon.training.advice.curve import ClassNeed, Curve
from taxon.training.reporting import pages
from taxon.training.reporting.report_plots import ACCENT, INK, QUIET, STYLE

DRAWN = 100
"""Points of a law."""


@dataclass(frozen=True, slots=True)
class Advice:
    """All that was found."""

    data: str
    picture_count: int
    total_count: int
    """Of pictures in the data, looked at or not."""
    judged: Sequence[Judged]
    """The most accurate first."""
    left_out: Sequence[LeftOut]
    recommendation: Recommendation
    latency_ms: float | None
    curve: Curve | None
    """Of the recommended backbone, or of the most accurate; None of too few pictures."""
    needs: Sequence[ClassNeed]


def write_advice(folder: Path, advice: Advice) -> None:
    """Writes `advice.json`, the plots and `index.html`.

    Raises:
        OSError: Not writable.
    """
    atomic_files.write(folder / "advice.json", json.dumps(as_json(advice), ensure_ascii=False, indent=1))
    with mpl.rc_context(STYLE):
        tradeoff(advice.judged, advice.latency_ms).savefig(folder / "pareto.png")
        if advice.curve is not None:
            learning(advice.curve).savefig(folder / "learning_curve.png")
    page = pages.render(
        "advice.html",
        title=f"Advice on {Path(advice.data).name or advice.data}",
        advice=advice,
        rows=[row(one) for one in advice.judged],
        folder=folder,
        train=advice.recommendation.chosen and train_command(advice, advice.recommendation.chosen),
        sentences=curve_sentences(advice.curve),
        classes=[
            [part.label, f"{part.count:,}", f"{part.recall:.1%}", f"{part.low:.1%} to {part.high:.1%}",
             f"{part.gain:+.1%}", f"{part.gain_low:+.1%} to {part.gain_high:+.1%}", part.need]
            for part in advice.needs
        ],
    )  # fmt: skip
    atomic_files.write(folder / "index.html", page)


def row(one: Judged) -> list[str]:
    """Backbone, weights, accuracy, interval, milliseconds by batch size, MiB in memory and of the file."""
    low, high = one.probed.interval
    return [
        one.backbone.name,
        one.backbone.weights,
        f"{one.probed.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        *(
            f"{one.cost.latency_ms[size]:.1f} to {one.cost.slowest_ms[size]:.1f}"
            for size in sorted(one.cost.latency_ms)
        ),
        f"{one.cost.memory_mib:.0f}",
        f"{one.cost.file_mib:.0f}",
    ]


def train_command(advice: Advice, one: Judged) -> str:
    """What fine-tunes a candidate as it was judged: same data, weights and size of pictures."""
    return shlex.join(["taxon", "train", "--data", advice.data, *one.backbone.train_options])


def curve_sentences(found: Curve | None) -> list[str]:
    """What more pictures would bring."""
    if found is None:
        return ["There are too few pictures for a learning curve."]
    return [
        f"With {forecast.times} times as many pictures ({forecast.picture_count:,} to train on) about "
        f"{forecast.accuracy:.1%} instead of {found.accuracies[-1]:.1%} (95 % interval {forecast.low:.1%} to "
        f"{forecast.high:.1%})."
        for forecast in found.forecasts
    ]


def as_json(advice: Advice) -> dict[str, Any]:
    """Everything, for machines."""
    chosen = advice.recommendation.chosen
    return {
        "data": advice.data,
        "picture_count": advice.picture_count,
        "total_count": advice.total_count,
        "latency_ms": advice.latency_ms,
        "recommended": chosen
        and {
            "name": chosen.backbone.name,
            "weights": chosen.backbone.weights,
            "train": train_command(advice, chosen),
        },
        "reasons": advice.recommendation.reasons,
        "candidates": [
            {
                "name": one.backbone.name,
                "weights": one.backbone.weights,
                "kind": one.backbone.kind,
                "train": train_command(advice, one),
                "accuracy": one.probed.accuracy,
                "interval": one.probed.interval,
                **asdict(one.cost),
            }
            for one in advice.judged
        ],
        "left_out": [asdict(one) for one in advice.left_out],
        "curve": advice.curve and asdict(advice.curve),
        "classes": [{**asdict(part), "need": part.need} for part in advice.needs],
    }


def tradeoff(judged: Sequence[Judged], latency_ms: float | None) -> Figure:
    """Accuracy by latency, the Pareto front as a line, random weights in a quiet colour."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for one in judged:
        low, high = one.probed.interval
        accuracy, floor = one.probed.accuracy, one.backbone.kind == "random"
        axes.errorbar(
            one.latency_ms,
            accuracy,
            yerr=[[accuracy - low], [high - accuracy]],
            fmt="o",
            color=QUIET if floor else ACCENT,
            capsize=3,
        )
        name = f"{one.backbone.name}{' (random)' if floor else ''}"
        axes.annotate(name, (one.latency_ms, accuracy), xytext=(6, 4), textcoords="offset points", fontsize=8)
    front = pareto([one for one in judged if one.backbone.kind != "random"])
    axes.step([one.latency_ms for one in front], [one.probed.accuracy for one in front], where="post", color=INK, lw=1)
    if latency_ms is not None:
        axes.axvline(latency_ms, color=QUIET, linestyle="--", linewidth=1)
        axes.text(latency_ms, 1.01, "asked for", transform=axes.get_xaxis_transform(), fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds for one picture, median", ylabel="accuracy of the probe")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
    return figure


def learning(found: Curve) -> Figure:
    """Accuracy by the number of training pictures, the law as a line, the forecasts with their intervals."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    a, b, c = found.law
    counts = np.geomspace(found.counts[0], found.forecasts[-1].picture_count, DRAWN)
    axes.plot(
        counts, 1 - (a + b * (counts / found.counts[-1]) ** -c), color=INK, linewidth=1, label="inverse power law"
    )
    axes.plot(found.counts, found.accuracies, "o", color=ACCENT, label="measured")
    ends = [
        [part.accuracy - part.low for part in found.forecasts],
        [part.high - part.accuracy for part in found.forecasts],
    ]
    axes.errorbar(
        [part.picture_count for part in found.forecasts],
        [part.accuracy for part in found.forecasts],
        yerr=ends,
        fmt="o",
        mfc="white",
        color=ACCENT,
        capsize=3,
        label="forecast, 95 %",
    )
    axes.set(xscale="log", xlabel="training pictures", ylabel="accuracy of the probe")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
    axes.legend(frameon=False)
    return figure
