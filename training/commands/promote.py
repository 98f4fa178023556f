"""The commands `taxon promote` and `taxon rollback`: which version answers by default, decided by figures."""

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from taxon.bundle.manifest import BundleError, FeaturesInput, Manifest
from taxon.bundle.store import Bundle
from taxon.training.dataset import data
from taxon.training.errors import TrainingError
from taxon.training.exporting import examples, parity
from taxon.training.exporting.examples import Example
from taxon.training.releases import compare, promotions
from taxon.training.releases.compare import Comparison
from taxon.training.releases.promotions import PromotionError
from taxon.training.runs.folder import Run


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures, or rows of numbers, that neither version was trained on."""

    files: tuple[Example, ...]
    labels: tuple[tuple[str, ...], ...]


def main(argv: list[str]) -> int:
    """`taxon promote`. Returns 0 if the version is the default now, 1 if it is worse, 2 if it cannot be told."""
    parser = argparse.ArgumentParser(
        description="Make a version the default (the label stable), if it is not worse than the present default on the "
        "same held-out pictures."
    )
    parser.add_argument("name", help="model name")
    parser.add_argument("version", type=int, help="the version to promote")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        type=Path,
        help="labelled folder of pictures, or CSV file of numbers, that neither version was trained on",
    )
    source.add_argument("--run", type=Path, help="run whose test split is used, or its val split if it has no test")
    parser.add_argument(
        "--allowed-loss", type=float, default=0.0, metavar="SHARE", help="accuracy that may be lost (default 0)"
    )
    parser.add_argument("--force", metavar="REASON", help="promote in spite of a loss; the reason is recorded")
    options = parser.parse_args(argv)
    console = Console()
    try:
        candidate = promotions.existing(options.models, options.name, options.version)
        current = promotions.current_version(options.models, options.name, options.version)
        comparison = None
        if current is not None:
            held_out = from_data(options.data, candidate.manifest) if options.data else from_run(options.run)
            comparison = compared(promotions.existing(options.models, options.name, current), candidate, held_out)
            console.print(to_table(current, options.version, comparison))
            if comparison.difference < -options.allowed_loss - 1e-12 and options.force is None:
                sys.stderr.write(f"taxon promote: {refusal(comparison)}; force it with --force REASON\n")
                return 1
        figures = None if comparison is None else dataclasses.asdict(comparison)
        promotions.promote(options.models, options.name, options.version, current, figures, options.force)
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon promote: {error}\n")
        return 2
    console.print(f"{options.name} version {options.version} is the default now", highlight=False)
    return 0


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
        sys.stderr.write(f"taxon rollback: {error}\n")
        return 2
    Console().print(f"{options.name} version {version} is the default again", highlight=False)
    return 0


def compared(current: Bundle, candidate: Bundle, held_out: HeldOut) -> Comparison:
    """Asks both versions about the held-out pictures and times both.

    Raises:
        PromotionError: The candidate lacks labels that callers may rely on, or takes other numbers.
        ParityError: A picture cannot be read.
    """
    same_input = candidate.manifest.input == current.manifest.input
    if "features" in (candidate.manifest.input.kind, current.manifest.input.kind) and not same_input:
        raise PromotionError(f"version {candidate.manifest.version} takes other input; publish it under a new name")
    if missing := sorted(set(current.manifest.labels) - set(candidate.manifest.labels)):
        raise PromotionError(
            f"version {candidate.manifest.version} lacks the labels {missing[:5]}; publish it under a new name"
        )
    before, after = (compare.answers(bundle, held_out.files, held_out.labels) for bundle in (current, candidate))
    pictures = None
    if same_input:
        size = min(8, len(held_out.files))
        _, pictures = next(parity.decoded_batches(held_out.files, candidate.manifest.pixels, (size,)))
    return compare.compare(before, after, held_out.labels, pictures)


def refusal(comparison: Comparison) -> str:
    """Why a version is refused, one sentence."""
    low, high = comparison.interval
    return (
        f"not promoted: its accuracy is {comparison.accuracy_after:.2%}, the default's "
        f"{comparison.accuracy_before:.2%} (difference {comparison.difference:+.2%}, 95 % interval {low:+.2%} to "
        f"{high:+.2%}, p {comparison.p_value:.3f})"
    )


def from_data(source: Path, manifest: Manifest) -> HeldOut:
    """All pictures of a labelled folder; for a classifier of numbers, all rows of a CSV file.

    Raises:
        TrainingError: It is not that.
    """
    files: tuple[Example, ...]
    if isinstance(manifest.input, FeaturesInput):
        files, found = examples.of_table(source, manifest.input.names)
    else:
        found = data.scan(source)
        files = tuple(sample.path for sample in found.samples)
    return HeldOut(
        files,
        tuple(tuple(found.labels[index] for index in sample.labels or (sample.label,)) for sample in found.samples),
    )


def from_run(folder: Path) -> HeldOut:
    """The test split of a run, or its validation split.

    Raises:
        TrainingError: Not a run.
    """
    run = Run.open(folder)
    samples = run.samples("test") or run.samples("val")
    return HeldOut(
        examples.of_run(run, "test" if run.samples("test") else "val", run.checkpoint()),
        tuple(
            tuple(run.labels[index] for index in sample.labels) if sample.label < 0 else (run.labels[sample.label],)
            for sample in samples
        ),
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
        table.add_row(f"recall of {change.label}", f"{change.before:.1%}", f"[red]{change.after:.1%}[/]")
    return table
