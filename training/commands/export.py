"""The command `taxon export`: a finished run in, a proven bundle in the model repository out."""

import argparse
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from taxon.bundle import signing
from taxon.bundle.manifest import BundleError, check_name
from taxon.bundle.signing import KeyFileError
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, examples, foreign, parity, variants
from taxon.training.exporting.bundling import Export, Settings
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.runs.folder import Run


def main(argv: list[str]) -> int:
    """Exports a run. Returns 0 if a bundle was published, 2 if not."""
    parser = argparse.ArgumentParser(
        description="Export the best checkpoint of a run to ONNX, prove on the validation pictures that it answers "
        "as torch does, and publish it as MODELS/NAME/VERSION."
    )
    parser.add_argument("run", type=Path, nargs="?", help="folder that `taxon train` wrote")
    parser.add_argument("--models", type=Path, required=True, help="model repository; made if it is missing")
    parser.add_argument("--name", help="model name; the run folder's by default")
    parser.add_argument(
        "--scaled-decoding",
        action="store_true",
        help="decode large JPEG pictures at a half, a quarter or an eighth of their sides, although training did not; "
        "refused if that changes the accuracy",
    )
    add_foreign(parser)
    add_settings(parser)
    options = parser.parse_args(argv)
    if (options.run is None) == (options.checkpoint is None):
        parser.error("give the folder of a run, or --checkpoint with --model, --labels and --data")
    if options.checkpoint is not None and None in (options.model, options.labels, options.data):
        parser.error("--checkpoint needs --model, --labels and --data")
    try:
        name = model_name(options.name, options.run or options.checkpoint.with_suffix(""))
        chosen = settings(options)
        candidate = from_run(options.run) if options.run else _from_checkpoint(options)
        if options.scaled_decoding:
            candidate = _with_scaled_decoding(candidate)
        export = bundling.publish(candidate, options.models, name, chosen)
    except (TrainingError, BundleError) as error:
        sys.stderr.write(f"taxon export: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"taxon export: {error.filename or options.models}: {error.strerror}; nothing was published\n")
        return 2
    print_summary(export)
    return 0


def _with_scaled_decoding(candidate: Candidate) -> Candidate:
    if candidate.pixels is None:
        raise ExportError("--scaled-decoding is about pictures, and the classifier takes numbers")
    return replace(candidate, pixels=candidate.pixels.model_copy(update={"scaled_decoding": True}))


def add_foreign(parser: argparse.ArgumentParser) -> None:
    """Adds the options for weights that were trained elsewhere."""
    group = parser.add_argument_group("weights that Taxon did not train")
    group.add_argument("--checkpoint", type=Path, help=".pth, .pt or .safetensors file")
    group.add_argument("--model", help="architecture, for example resnet50")
    group.add_argument("--labels", type=Path, help="text file, one label a line, in the order of the logits")
    group.add_argument("--data", type=Path, help="labelled folder of validation pictures")
    group.add_argument("--image-size", type=int, help="side in pixels; that of the architecture's weights by default")
    group.add_argument("--pixels", type=Path, help="JSON of a manifest's `pixels`; instead of a size")
    group.add_argument("--mean", type=float, nargs="+", help="per channel of x / 255")
    group.add_argument("--std", type=float, nargs="+", help="per channel of x / 255")
    group.add_argument(
        "--expected-accuracy", type=float, help="refuse if the pictures give another: labels may be swapped"
    )


def _from_checkpoint(options: argparse.Namespace) -> Candidate:
    wanted = foreign.Wanted(
        image_size=options.image_size,
        pixels=options.pixels,
        mean=options.mean and tuple(options.mean),
        std=options.std and tuple(options.std),
        expected_accuracy=options.expected_accuracy,
    )
    return foreign.from_checkpoint(options.checkpoint, options.model, options.labels, options.data, wanted)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the options of everything that ends in a bundle."""
    parser.add_argument(
        "--tolerance", type=float, help=f"largest score difference; by default {parity.TOLERANCES} by provider"
    )
    parser.add_argument(
        "--calibration",
        choices=("temperature", "none"),
        default="temperature",
        help="fit a temperature on the validation pictures and put it into the graph (default), or leave scores alone",
    )
    parser.add_argument(
        "--unknown-coverage",
        type=coverage,
        metavar="SHARE",
        help='choose the threshold below which the service says "unknown" so that this share of the validation '
        "pictures keeps an answer, for example 0.98; none by default",
    )
    parser.add_argument(
        "--variants",
        type=precisions,
        default=(),
        metavar="LIST",
        help="lighter graphs to try beside fp32: fp16 (for CUDA), int8 (for CPUs), or both, separated by a comma; one "
        "that is slower or loses more than the budget is left out, with the reason",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=variants.BUDGET,
        metavar="SHARE",
        help=f"accuracy that a variant may lose ({variants.BUDGET})",
    )
    parser.add_argument(
        "--sign-key", type=Path, metavar="FILE", help="PEM file with an Ed25519 private key that signs the bundle"
    )


def settings(options: argparse.Namespace) -> Settings:
    """What `add_settings` asked for.

    Raises:
        ExportError: The key that is to sign cannot be used.
    """
    try:
        sign = options.sign_key and signing.signer(options.sign_key)
    except KeyFileError as error:
        raise ExportError(f"--sign-key: {error}") from error
    return Settings(
        calibration=options.calibration == "temperature",
        unknown_coverage=options.unknown_coverage,
        tolerance=options.tolerance,
        precisions=options.variants,
        budget=options.budget,
        sign=sign,
    )


def model_name(given: str | None, run: Path) -> str:
    """The given name, or the run folder's made fit.

    Raises:
        ExportError: The given name may not name a model.
    """
    try:
        return check_name(
            re.sub(r"[^a-z0-9_-]+", "-", run.resolve().name.lower()).strip("-_") if given is None else given
        )
    except ValueError as error:
        raise ExportError(f"{error}; choose one with --name") from error


def coverage(text: str) -> float:
    """A share above 0 and at most 1, for argparse."""
    share = float(text)
    if not 0.0 < share <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most 1")
    return share


def precisions(text: str) -> tuple[str, ...]:
    """A list such as `fp16,int8`, for argparse."""
    chosen = tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "none"))
    if unknown := set(chosen) - {"fp16", "int8"}:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} must be fp16 or int8")
    return tuple(dict.fromkeys(chosen))


def from_run(folder: Path) -> Candidate:
    """The best checkpoint of a run with the run's validation pictures.

    Raises:
        TrainingError: Not a finished run, or one whose parts do not belong together.
    """
    run = Run.open(folder)
    checkpoint = run.checkpoint()
    if checkpoint.run_id != run.id:
        raise ExportError(f"{run.best_path} belongs to the run {checkpoint.run_id}, the folder to {run.id}")
    if checkpoint.labels != run.labels:
        raise ExportError(f"{run.best_path} has other labels than labels.json, or in another order")
    samples = run.samples("val")
    return Candidate(
        network=checkpoint.build_model(),
        labels=checkpoint.labels,
        pixels=checkpoint.pixels,
        mean=checkpoint.mean,
        std=checkpoint.std,
        files=examples.of_run(run, "val", checkpoint),
        answers=tuple(
            tuple(
                run.labels[index] for index in (sample.labels if checkpoint.task == "multi_label" else (sample.label,))
            )
            for sample in samples
        ),
        run_id=run.id,
        data_digest=run.data_digest,
        task=checkpoint.task,
        expected_accuracy=checkpoint.metrics.get("accuracy") if checkpoint.task == "single_label" else None,
        seed=run.facts.get("seed"),
        git=run.facts.get("git"),
        training_files=examples.of_run(run, "train", checkpoint),
        features=checkpoint.features,
        parents=tuple(run.facts.get("parents", ())),
        recipe=tomllib.loads((run.folder / "recipe.toml").read_text(encoding="utf-8")),
        metrics={name: float(value) for name, value in checkpoint.metrics.items()},
    )


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
            f"{result.accuracy or 0:.2%}",
        )
    console = Console()
    console.print(table)
    for attempt in export.attempts:
        console.print(f"[yellow]not used:[/] {attempt.strategy}: {attempt.reason}", highlight=False)
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
        console.print(note, highlight=False)
    sizes = parity.batch_sizes(export.parities[-1].file_count)
    console.print(
        f"batches of {', '.join(map(str, sizes))} · exporter {export.strategy.name} · "
        f"{len(manifest.golden)} golden pictures\n"
        f"published [bold]{manifest.name}[/] version [bold]{manifest.version}[/]: {export.bundle.folder}",
        highlight=False,
        soft_wrap=True,
    )
