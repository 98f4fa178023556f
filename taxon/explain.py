"""The command `taxon explain`: pictures in, and for each a PNG file that shows what speaks for its label."""

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from taxon import connection, extras, ranges
from taxon.bundle.manifest import BundleError
from taxon.bundle.picture_limits import PictureError
from taxon.client import DEFAULT_TIMEOUT_S, Client
from taxon.errors import TaxonError
from taxon.explanation import overlay
from taxon.picture_files import check_name, printable
from taxon.requests import EXPLANATION_METHODS

SUFFIX = ".explained.png"
HERE = "taxon.service.runtime.bundle_explanation"
NAMES = {number: name for name, number in EXPLANATION_METHODS.items()}


class Told(NamedTuple):
    """What there is to say of one picture."""

    label: str
    score: float
    method: str
    run_count: int
    """Pictures that the model was run on."""
    by: str
    """The model and its version."""
    png: bytes


Explain = Callable[[bytes], Told]


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 1 if a picture was not explained, or 2 if the command is not usable as called."""
    options = _parser().parse_intermixed_args(argv)
    try:
        targets = _targets(options.paths, options.out)
        explain = _on_bundle(options) if options.bundle else _by_server(options)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"taxon explain: {error}; install it with: {extras.install('cpu')}\n")
        return 2
    except (BundleError, OSError, ValueError) as error:
        sys.stderr.write(f"taxon explain: {error}\n")
        return 2
    failed = False
    for path, target in zip(options.paths, targets, strict=True):
        try:
            told = explain(path.read_bytes())
            target.write_bytes(told.png)
        except (TaxonError, PictureError, OSError, ValueError) as error:
            sys.stderr.write(f"taxon explain: {printable(path)}: {error}\n")
            failed = True
            continue
        runs = f"{told.run_count} runs" if told.run_count > 1 else "1 run"
        sys.stdout.write(
            f"{printable(path)}: {told.label} {told.score:.4f} by {told.by}, explained by {told.method} ({runs}): "
            f"{printable(target)}\n"
        )
    return int(failed)


def _targets(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Where each picture's overlay goes.

    Raises:
        OSError: A picture does not exist, or the folder cannot be made.
        ValueError: Two would be the same, or one is a picture.
    """
    for path in paths:
        check_name(path)
        if not path.is_file():
            raise FileNotFoundError(f"{printable(path)} is no file")
    targets = [folder / (path.stem + SUFFIX) for path in paths]
    if double := [target for target, count in Counter(targets).items() if count > 1]:
        raise ValueError(f"several pictures would be explained in {printable(double[0])}: give them one by one")
    folder.mkdir(parents=True, exist_ok=True)
    return targets


def _by_server(options: argparse.Namespace) -> Explain:
    server = connection.from_options(options)
    client = Client(
        server,
        timeout_s=options.timeout_s,
    )

    def explain(encoded: bytes) -> Told:
        answer = client.explain(
            encoded,
            label=options.label,
            method=options.method,
            overlay=True,
            model=options.model,
            version=options.version,
        )
        by = f"{answer.model_name} {answer.model_version}"
        return Told(answer.label, answer.score, NAMES[answer.method], answer.run_count, by, answer.overlay_png)

    return explain


def _on_bundle(options: argparse.Namespace) -> Explain:
    # By its name: what is shared needs neither house, unless it is asked for.
    explainer = importlib.import_module(HERE).BundleExplainer(options.bundle, options.variant)

    def explain(encoded: bytes) -> Told:
        found = explainer.explain(encoded, options.label, options.method)
        png = overlay.png(overlay.drawn(found.picture, found.heat))
        by = f"{explainer.manifest.name} {explainer.manifest.version}"
        return Told(found.label, found.score, found.method, found.run_count, by, png)

    return explain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw over pictures what speaks for a label; say the label, its score and how it was explained.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a picture")
    parser.add_argument("--label", default="", help="what to explain; empty for the label with the highest score")
    parser.add_argument(
        "--method",
        choices=[*filter(None, EXPLANATION_METHODS)],
        default="",
        help="activation: by the model's own maps, where it was exported with them; masking: from the scores of "
        "hundreds of masked copies; by default the first where there is a choice",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help=f"where the overlays go, as NAME{SUFFIX}"
    )
    parser.add_argument("--model", default="", help="name of the server's model; empty for its only one")
    parser.add_argument("--version", default="", help="a number or a label such as stable; empty for the default")
    parser.add_argument("--timeout-s", type=ranges.seconds, default=DEFAULT_TIMEOUT_S, help="seconds per picture")
    connection.add_options(parser)
    group = parser.add_argument_group("without a server")
    group.add_argument("--bundle", type=Path, metavar="FOLDER", help="ask this bundle, MODELS/NAME/VERSION, here")
    group.add_argument("--variant", choices=("fp32", "fp16", "int8"), default="fp32", help="of the bundle")
    return parser
