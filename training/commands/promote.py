"""The commands `taxon promote` and `taxon rollback`: which version answers by default, decided by figures."""

import argparse
import dataclasses
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import ranges
from taxon.bundle.manifest import BundleError
from taxon.bundle.store import Bundle
from taxon.mistaken import in_words
from taxon.training.errors import TrainingError
from taxon.training.releases import promotions
from taxon.training.releases.compare import Comparison, compared
from taxon.training.releases.held_out import from_data, from_run
from taxon.training.releases.promotions import PromotionError

SLICES_SHOWN = 12
"""Those that lose most certainly; the record has all."""


def main(argv: list[str]) -> int:
    """`taxon promote`. Returns 0 if the version is the default now, 1 if it is worse, 2 if it cannot be told."""
    parser = argparse.ArgumentParser(
        description="Make a version the default (the label stable), if it is not worse than the present default on the "
        "same held-out pictures, nor beyond chance on any slice of them: by source, by every further column of a list, "
        "by size, by brightness."
    )
    parser.add_argument("name", help="model name")
    parser.add_argument("version", type=ranges.version, help="the version to promote")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        type=Path,
        help="labelled folder or CSV list of pictures, or CSV file of numbers, that neither version was trained on; of "
        "one with splits: test, or else val",
    )
    source.add_argument("--run", type=Path, help="run whose test split is used, or its val split if it has no test")
    parser.add_argument(
        "--allowed-loss",
        type=ranges.share,
        default=0.0,
        metavar="SHARE",
        help="accuracy that may be lost, overall and on any slice (default 0)",
    )
    parser.add_argument(
        "--force",
        metavar="REASON",
        help="promote in spite of a loss, or of a default that is damaged or gone; the reason is recorded",
    )
    options = parser.parse_args(argv)
    console = Console()
    try:
        candidate = promotions.existing(options.models, options.name, options.version)
        current = promotions.current_version(options.models, options.name, options.version)
        comparison = None if current is None else _compare(options, current, candidate)
        if current is not None and comparison is not None:
            console.print(to_table(current, options.version, comparison))
            if (reason := refusal(comparison, options.allowed_loss)) and options.force is None:
                sys.stderr.write(f"taxon promote: not promoted: {reason}; force it with --force REASON\n")
                return 1
        figures = None if comparison is None else dataclasses.asdict(comparison)
        promotions.promote(options.models, options.name, options.version, current, figures, options.force)
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon promote: {in_words(error)}\n")
        return 2
    console.print(f"{options.name} version {options.version} is the default now", highlight=False)
    return 0


def _compare(options: argparse.Namespace, current: int, candidate: Bundle) -> Comparison | None:
    """With the default; None if that cannot be read and the promotion is forced."""
    try:
        default = promotions.existing(options.models, options.name, current)
    except (PromotionError, BundleError) as error:
        if options.force is None:
            raise PromotionError(
                f"the default cannot be compared with: {error}; replace it with --force REASON"
            ) from error
        sys.stderr.write(f"taxon promote: compared with nothing: {error}\n")
        return None
    if default.manifest.thresholds.unknown is not None and candidate.manifest.thresholds.unknown is None:
        sys.stderr.write(
            f"taxon promote: version {candidate.manifest.version} never answers unknown, as version {current} does: "
            "it was exported without --unknown-coverage\n"
        )
    held_out = from_data(options.data, candidate.manifest) if options.data else from_run(options.run)
    for note in held_out.notes:
        sys.stderr.write(f"taxon promote: {note}\n")
    return compared(default, candidate, held_out)


def rollback_main(argv: list[str]) -> int:
    """`taxon rollback`. Returns 0 if an earlier version is the default now, 2 if there is none."""
    parser = argparse.ArgumentParser(description="Make the version the default that was it before the last promotion.")
    parser.add_argument("name", help="model name")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--reason", default="", help="recorded")
    options = parser.parse_args(argv)
    try:
        version = promotions.rollback(options.models, options.name, options.reason)
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon rollback: {in_words(error)}\n")
        return 2
    Console().print(f"{options.name} version {version} is the default again", highlight=False)
    return 0


def refusal(comparison: Comparison, allowed_loss: float) -> str:
    """Why a version is refused, one clause; empty if it is not."""
    if comparison.difference < -allowed_loss - 1e-12:
        low, high = comparison.interval
        return (
            f"its accuracy is {comparison.accuracy_after:.2%}, the default's {comparison.accuracy_before:.2%} "
            f"(difference {comparison.difference:+.2%}, 95 % interval {low:+.2%} to {high:+.2%}, "
            f"p {comparison.p_value:.3f})"
        )
    return "; ".join(
        f"on the slice {change.title!r}, {change.picture_count} pictures, its accuracy is {change.accuracy_after:.2%}, "
        f"the default's {change.accuracy_before:.2%} ({change.lost} lost, {change.gained} gained, "
        f"p {change.p_value:.3g} among {len(comparison.slices)} slices)"
        for change in comparison.slices
        if change.loses(allowed_loss)
    )


def to_table(current: int, candidate: int, comparison: Comparison) -> Table:
    """The comparison, for people."""
    table = Table("", f"version {current} (default)", f"version {candidate}")
    table.add_row("accuracy", f"{comparison.accuracy_before:.2%}", f"{comparison.accuracy_after:.2%}")
    low, high = comparison.interval
    table.add_row(
        f"difference on {comparison.picture_count} pictures",
        "",
        f"{comparison.difference:+.2%} ({low:+.2%} to {high:+.2%}), p {comparison.p_value:.3f}",
    )
    table.add_row("only this one is right", str(comparison.lost), str(comparison.gained))
    table.add_row(
        "calibration error",
        f"{comparison.calibration_error_before:.3f}",
        f"{comparison.calibration_error_after:.3f}",
    )
    for size, before in comparison.latency_ms_before.items():
        table.add_row(f"ms per batch of {size}", f"{before:.2f}", f"{comparison.latency_ms_after[size]:.2f}")
    for change in comparison.regressions:
        table.add_row(f"recall of {escape(change.label)}", f"{change.before:.1%}", f"[red]{change.after:.1%}[/]")
    for part in comparison.slices[:SLICES_SHOWN]:
        table.add_row(
            f"{escape(part.title)} ({part.picture_count})",
            _share(part.accuracy_before, part.interval_before),
            f"{_share(part.accuracy_after, part.interval_after)}, p {part.p_value:.3f}",
        )
    return table


def _share(accuracy: float, interval: tuple[float, float]) -> str:
    return f"{accuracy:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"
