"""What the commands that end in a bundle print at their end."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon.training.exporting import parity
from taxon.training.exporting.bundling import Export


def print_summary(export: Export) -> None:
    """Prints what was published and how well it agrees with torch."""
    manifest = export.bundle.manifest
    table = Table("parity on", "pictures", "top-1 agreement", "largest difference", "allowed", "accuracy")
    for result in export.parities:
        table.add_row(
            result.provider.removesuffix("ExecutionProvider"),
            str(result.file_count),
            f"{result.top1_agreement:.2%}",
            f"{result.max_score_difference:.1e}",
            f"{result.tolerance:.0e}",
            f"{result.accuracy:.2%}",
        )
    console = Console()
    console.print(table)
    for attempt in export.attempts:
        console.print(f"[yellow]not used:[/] {attempt.strategy}: {escape(attempt.reason)}", highlight=False)
    if (calibration := manifest.calibration) is not None and calibration.ece is not None:
        console.print(
            f"calibration: temperature {calibration.temperature:.2f}, expected calibration error "
            f"{calibration.ece_before:.3f} → {calibration.ece:.3f}"
            + (" (a fitted temperature did not help)" if calibration.temperature == 1.0 else ""),
            highlight=False,
        )
    if calibration is not None and calibration.unknown_coverage is not None:
        console.print(
            f'"unknown" below {manifest.thresholds.unknown:.3f}: {calibration.unknown_coverage:.1%} of the pictures '
            f"keep an answer, {calibration.unknown_accuracy:.2%} of those are right",
            highlight=False,
        )
    for note in export.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    sizes = parity.batch_sizes(export.parities[-1].file_count)
    console.print(
        f"batches of {', '.join(map(str, sizes))} · exporter {export.strategy.name} · "
        f"{len(manifest.golden)} golden pictures\n"
        f"published [bold]{manifest.name}[/] version [bold]{manifest.version}[/]: {escape(str(export.bundle.folder))}",
        highlight=False,
        soft_wrap=True,
    )
