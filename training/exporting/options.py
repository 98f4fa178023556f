"""The command-line options of everything that ends in a bundle, and the settings that they stand for."""

import argparse
import re
from pathlib import Path

from taxon import ranges
from taxon.bundle import signing
from taxon.bundle.manifest import check_name
from taxon.bundle.signing import KeyFileError
from taxon.training.exporting import evidence, parity
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.evidence import Budget

LONGEST = 63
"""Characters of a model's name."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the options of everything that ends in a bundle."""
    parser.add_argument(
        "--tolerance", type=ranges.share, help=f"largest score difference; by default {parity.TOLERANCES} by provider"
    )
    parser.add_argument(
        "--calibration",
        choices=("temperature", "none"),
        default="temperature",
        help="fit a temperature on the validation pictures and put it into the graph (default), or leave scores alone",
    )
    parser.add_argument(
        "--unknown-coverage",
        type=ranges.number(0.0, 1.0, above=True),
        metavar="SHARE",
        help="put a judge into the graph that compares each picture with those of training, and choose the threshold "
        'below which the service says "unknown" so that this share of the validation pictures keeps an answer, for '
        "example 0.98; where features cannot be compared, the best score is judged; none by default",
    )
    parser.add_argument(
        "--maps",
        action="store_true",
        help="have the bundle give class activation maps, for `taxon explain`: what each place of a picture adds to "
        "each label; only of networks that end in a global pooling and a linear layer; paid only when asked for",
    )
    parser.add_argument(
        "--variants",
        type=precisions,
        default=(),
        metavar="LIST",
        help="lighter graphs to try beside fp32: fp16 (for CUDA), int8 (for CPUs), or both, separated by a comma; "
        "one that may lose more than the budget is left out, and an int8 graph that is not faster, with the reason",
    )
    parser.add_argument(
        "--budget",
        type=ranges.share,
        default=evidence.BUDGET,
        metavar="SHARE",
        help=f"accuracy that a variant may lose ({evidence.BUDGET})",
    )
    parser.add_argument(
        "--judge-by",
        choices=("bound", "estimate"),
        default="bound",
        help="what must not exceed the budget: what the variant loses at most with 95 %% confidence (default; takes "
        f"{evidence.fewest_pictures(evidence.BUDGET)} validation pictures or more for a budget of {evidence.BUDGET}), "
        "or what it loses on the validation pictures, few as they may be; the bundle says which",
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
        maps=options.maps,
        tolerance=options.tolerance,
        precisions=options.variants,
        budget=Budget(options.budget, options.judge_by),
        sign=sign,
    )


def model_name(given: str | None, run: Path) -> str:
    """The given name, or the run folder's made fit.

    Raises:
        ExportError: The given name may not name a model.
    """
    try:
        return check_name(
            re.sub(r"[^a-z0-9_-]+", "-", run.resolve().name.lower()).strip("-_")[:LONGEST] if given is None else given
        )
    except ValueError as error:
        raise ExportError(f"{error}; choose one with --name") from error


def precisions(text: str) -> tuple[str, ...]:
    """A list such as `fp16,int8`, for argparse."""
    chosen = tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "none"))
    if unknown := set(chosen) - {"fp16", "int8"}:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} must be fp16 or int8")
    return tuple(dict.fromkeys(chosen))
