"""Figures of runs as a table and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

QUANTILES = {"p50": ("p50_ms", 2), "p90": ("p90_ms", 10), "p99": ("p99_ms", 100), "p99.9": ("p99_9_ms", 1000)}
"""Key, and of how many answers it can be told."""
BUSY = 0.8
LATE_SHARE = 0.1


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a run: what was offered, answered, answered in time, and how fast."""
    drawn = Table(show_edge=False)
    drawn.add_column("load", no_wrap=True)
    for heading in ("offered/s", "answered/s", "goodput/s", *(f"{name} ms" for name in QUANTILES)):
        drawn.add_column(heading.replace("/s", "\n/s").replace(" ms", "\nms"), justify="right", no_wrap=True)
    for row in rows:
        count = row["answered_per_s"] * row["seconds"]
        quantiles = (_milliseconds(row[key]) if count >= least else "-" for key, least in QUANTILES.values())
        rates = (f"{row[key]:.1f}" for key in ("offered_per_s", "answered_per_s", "good_per_s"))
        drawn.add_row(row["load"], *rates, *quantiles)
    return drawn


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What else became of calls: how many had which status."""
    told = []
    for row in rows:
        failed = {name: number for name, number in row["statuses"].items() if name != "OK"}
        if failed:
            share = sum(failed.values()) / sum(row["statuses"].values())
            named = ", ".join(f"{number} {name}" for name, number in failed.items())
            told.append(f"{row['load']}: {share:.1%} failed: {named}")
    return told


def doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the generator, and not the server, may have been the limit."""
    told = []
    for row in rows:
        if row["generator_cpu_share"] > BUSY:
            told.append(
                f"{row['load']}: the generator kept {row['generator_cpu_share']:.0%} of a core busy, and may have been "
                "the limit: run several at once, elsewhere"
            )
        lag, p99 = row["generator_lag_p99_ms"] or 0.0, row["p99_ms"] or 0.0
        if "rate" in row and lag > LATE_SHARE * p99:
            told.append(f"{row['load']}: of the latencies up to {lag:.1f} ms are the generator's own (99 % of calls)")
    return told


def plot(rows: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """Latency and goodput by offered rate; the file's ending says the format.

    Raises:
        ModuleNotFoundError: There is no matplotlib.
        ValueError: The ending names no format.
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    opened = sorted((row for row in rows if "rate" in row), key=lambda row: row["rate"])
    drawn = Figure(figsize=(8, 6), layout="constrained")
    above, below = drawn.subplots(2, sharex=True)
    offered = [row["offered_per_s"] for row in opened]
    for name, (key, _) in QUANTILES.items():
        above.plot(offered, [row[key] if row[key] is not None else float("nan") for row in opened], "o-", label=name)
    above.set(title=title, ylabel="latency, ms", yscale="log")
    above.legend()
    below.plot(offered, [row["good_per_s"] for row in opened], "o-")
    below.plot(offered, offered, ":", color="grey")
    below.set(xlabel="offered, calls/s", ylabel="goodput, calls/s")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    drawn.savefig(file)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
