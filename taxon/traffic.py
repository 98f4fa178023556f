"""The command `taxon traffic`: which versions answer calls that name none. The default is for `taxon promote`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from taxon import ranges
from taxon.bundle import store, traffic
from taxon.bundle.manifest import BundleError, check_name
from taxon.bundle.traffic import Bounds, Canary, Shadow, Traffic
from taxon.mistaken import in_words

USUAL = Bounds()


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 2 if what is declared cannot be, or the version is damaged."""
    options = _parser().parse_args(argv)
    try:
        if check_name(options.name) not in store.names(options.models):
            raise BundleError(f"{options.models} has no model {options.name}")
        if edit := _edit(options):
            declared = traffic.change(options.models, options.name, edit)
        else:
            declared = traffic.read(options.models, options.name)
    except (OSError, BundleError, ValueError) as error:
        sys.stderr.write(f"taxon traffic: {in_words(error)}\n")
        return 2
    Console().print_json(declared.model_dump_json(exclude_none=True))
    return 0


def _edit(options: argparse.Namespace) -> Callable[[Traffic], Traffic] | None:
    if options.verb == "show":
        return None
    if options.verb == "clear":
        both = not (options.canary or options.shadow)
        ended = {role: None for role in ("canary", "shadow") if both or getattr(options, role)}
        return lambda before: before.changed(**ended)
    store.read(options.models, options.name, options.version)
    if options.verb == "shadow":
        shadow = Shadow(version=options.version, share=options.share)
        return lambda before: before.changed(shadow=shadow)
    try:
        bounds = Bounds(**{field: getattr(options, field) for field in Bounds.model_fields})
    except ValidationError as error:
        raise ValueError(traffic.faults(error)) from None
    canary = Canary(version=options.version, share=options.share, bounds=bounds, declared=traffic.now())
    return lambda before: before.changed(canary=canary)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Say which versions take part in the calls that name no version, beside the default. Services "
        "follow within a fraction of a second. Prints what is declared then."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|canary|shadow|clear")
    verbs.add_parser("show", help="only print it")
    canary = verbs.add_parser(
        "canary", help="a version answers a share of the calls, until it breaks a bound; said again, it is tried again"
    )
    shadow = verbs.add_parser("shadow", help="a version is run on copies of a share of the calls, and compared")
    clear = verbs.add_parser("clear", help="the default answers all calls again")
    clear.add_argument("--canary", action="store_true", help="only end the canary")
    clear.add_argument("--shadow", action="store_true", help="only end the shadow")
    for verb in verbs.choices.values():
        verb.add_argument("name", help="model name")
        verb.add_argument("--models", type=Path, required=True, help="model repository")
    for verb in (canary, shadow):
        verb.add_argument("version", type=ranges.version)
        verb.add_argument(
            "--share", type=ranges.number(0.0, 1.0, above=True), required=True, help="of the calls: above 0, up to 1"
        )
    calls = ranges.whole(10, 100_000)
    canary.add_argument(
        "--window",
        type=calls,
        default=USUAL.window,
        help="its last calls that are compared with as many of the default's (default %(default)s)",
    )
    canary.add_argument(
        "--min-calls", type=calls, default=USUAL.min_calls, help="with fewer nothing is decided (default %(default)s)"
    )
    canary.add_argument(
        "--max-error-increase",
        type=ranges.share,
        default=USUAL.max_error_increase,
        metavar="SHARE",
        help="it may fail so much more often than the default (default %(default)s)",
    )
    canary.add_argument(
        "--max-nan-increase",
        type=ranges.share,
        default=USUAL.max_nan_increase,
        metavar="SHARE",
        help="its scores may be no numbers so much more often (default %(default)s)",
    )
    canary.add_argument(
        "--max-latency-ratio",
        type=ranges.number(1.0, 1000.0),
        default=USUAL.max_latency_ratio,
        metavar="RATIO",
        help="the 90th percentile of its times may be so many times the default's, and 5 ms (default %(default)s)",
    )
    return parser
