"""The command `taxon explain`: pictures in, and for each a PNG file that shows what speaks for its label; on demand a
page beside it, with the training pictures that the model sees most alike.
"""

import argparse
import base64
import html
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from taxon import connection, extras, ranges
from taxon.bundle.manifest import BundleError
from taxon.bundle.picture_limits import PictureError
from taxon.bundle.thumbnails import MEDIA_TYPE, MOST_NEIGHBORS
from taxon.client import DEFAULT_TIMEOUT_S, Client
from taxon.errors import TaxonError
from taxon.explanation import overlay
from taxon.mistaken import in_words
from taxon.picture_files import check_name, printable
from taxon.requests import EXPLANATION_METHODS

SUFFIX, PAGE_SUFFIX = ".explained.png", ".explained.html"
STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}
ol{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:1rem}li{width:9rem;overflow-wrap:anywhere}
img{max-width:100%}li img{width:100%;aspect-ratio:1;object-fit:contain}"""
HERE = "taxon.service.runtime.bundle_explanation"
NAMES = {number: name for name, number in EXPLANATION_METHODS.items()}


class Like(Protocol):
    """A training picture, as the server's message has it, or `taxon.bundle.thumbnails`."""

    @property
    def thumbnail(self) -> bytes:
        """A JPEG file."""

    @property
    def labels(self) -> Sequence[str]:
        """True of it."""

    @property
    def similarity(self) -> float:
        """In -1…1."""


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
    neighbors: Sequence[Like]
    """The most alike first."""


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
        sys.stderr.write(f"taxon explain: {in_words(error)}\n")
        return 2
    failed = False
    for path, target in zip(options.paths, targets, strict=True):
        try:
            told = explain(path.read_bytes())
            target.write_bytes(told.png)
            if told.neighbors:
                page = target.with_name(path.stem + PAGE_SUFFIX)
                page.write_text(_page(path.name, told), encoding="utf-8")
        except (TaxonError, BundleError, PictureError, OSError, ValueError) as error:
            where = "" if isinstance(error, OSError) else f"{printable(path)}: "
            sys.stderr.write(f"taxon explain: {where}{in_words(error)}\n")
            failed = True
            continue
        runs = f"{told.run_count} runs" if told.run_count > 1 else "1 run"
        sys.stdout.write(
            f"{printable(path)}: {told.label} {told.score:.4f} by {told.by}, explained by {told.method} ({runs}): "
            f"{printable(target)}{f', {printable(page)}' if told.neighbors else ''}\n"
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
    client = Client(server, timeout_s=options.timeout_s)

    def explain(encoded: bytes) -> Told:
        answer = client.explain(
            encoded,
            label=options.label,
            method=options.method,
            overlay=True,
            model=options.model,
            version=options.version,
            neighbors=options.neighbors,
        )
        by = f"{answer.model_name} {answer.model_version}"
        return Told(
            answer.label, answer.score, NAMES[answer.method], answer.run_count, by, answer.overlay_png, answer.neighbors
        )

    return explain


def _on_bundle(options: argparse.Namespace) -> Explain:
    # By its name: what is shared needs neither house, unless it is asked for.
    explainer = importlib.import_module(HERE).BundleExplainer(options.bundle, options.variant)

    def explain(encoded: bytes) -> Told:
        found = explainer.explain(encoded, options.label, options.method, options.neighbors)
        png = overlay.png(overlay.drawn(found.picture, found.heat))
        by = f"{explainer.manifest.name} {explainer.manifest.version}"
        return Told(found.label, found.score, found.method, found.run_count, by, png, found.neighbors)

    return explain


def _page(name: str, told: Told) -> str:
    """The overlay, and the training pictures beside it, in one file that needs nothing else."""
    label, by, name = html.escape(told.label), html.escape(told.by), html.escape(name)
    strip = "".join(
        f'<li><img src="{_inline(one.thumbnail, MEDIA_TYPE)}" alt=""> '
        f"{html.escape(', '.join(one.labels) or 'no label')} <small>{one.similarity:.3f}</small></li>\n"
        for one in told.neighbors
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n'
        f'<p><img src="{_inline(told.png, "image/png")}" alt="What speaks for {label}: the warmer, the more"></p>\n'
        f"<p>{label}, score {told.score:.4f} by {by}</p>\n<h2>Training pictures that the model sees most alike</h2>\n"
        f"<ol>\n{strip}</ol>\n</body></html>\n"
    )


def _inline(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


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
        "--neighbors",
        type=ranges.whole(0, MOST_NEIGHBORS),
        default=0,
        metavar="COUNT",
        help="of the training pictures whose thumbnails the model holds, show so many that it sees most alike, on a "
        f"page NAME{PAGE_SUFFIX}",
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
