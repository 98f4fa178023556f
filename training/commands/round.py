"""The command `taxon round`: from what people say to the next version, or to the reason why not. Made for cron."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taxon import ranges
from taxon.bundle.manifest import BundleError
from taxon.feedback import rules
from taxon.feedback.errors import ReviewError, StoreError
from taxon.feedback.options import add_store, opened
from taxon.feedback.sealing import SealError
from taxon.training import flags
from taxon.training.errors import TrainingError
from taxon.training.exporting.options import add_settings, settings
from taxon.training.loop import machine
from taxon.training.rounds import round as rounds
from taxon.training.rounds.merge import Wanted
from taxon.training.rounds.round import Order
from taxon.training.rounds.state import AnotherRoundError, State, abandon, alone

REFUSED, CANNOT, INTERRUPTED, UNDER_WAY = 1, 2, 130, 75
"""Exit codes; the last is EX_TEMPFAIL of sysexits.h."""


def main(argv: list[str]) -> int:
    """`taxon round`. Returns 0 if a version was promoted or nothing is new, 1 if it was refused, 2 if it cannot be done
    as called, 75 if another round is under way, 130 if interrupted. Called again, it goes on where it was.
    """
    options = _parser().parse_args(argv)
    try:
        order = _order(options)
        with alone(order.rounds):
            if options.abandon:
                number = abandon(order.rounds, order.name)
                print(f"round {number} is abandoned" if number else "no round is under way")  # noqa: T201 - the answer
                return 0
            quiet = _quiet(order.rounds / "log.txt") if options.quiet else contextlib.nullcontext()
            with opened(options) as store, quiet:
                state = rounds.hold(order, store, lambda line: print(line, flush=True))  # noqa: T201 - for people
        if not options.quiet or state.outcome == "refused":
            _tell(state, options.json)
        return REFUSED if state.outcome == "refused" else 0
    except AnotherRoundError as error:
        sys.stderr.write("" if options.quiet else f"taxon round: {error}\n")
        return UNDER_WAY
    except (TrainingError, BundleError, StoreError, SealError, ReviewError, ValueError) as error:
        sys.stderr.write(f"taxon round: {error}\n")
    except OSError as error:
        sys.stderr.write(f"taxon round: {error.filename or options.rounds}: {error.strerror or error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("taxon round: interrupted; the same command goes on\n")
        return INTERRUPTED
    finally:
        machine.leave()
    return CANNOT


def _tell(state: State, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(state), ensure_ascii=False, default=str) + "\n")
    elif state.outcome == "refused":
        sys.stderr.write(f"taxon round: version {state.production} stays: {'; '.join(state.reasons)}\n")


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """What would be shown goes into a file."""
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def _order(options: argparse.Namespace) -> Order:
    changes: dict[str, dict[str, Any]] = {}
    for assignment in options.set:
        flags.assign(changes, assignment)
    for key in ("epochs", "lr"):
        if (value := getattr(options, key)) is not None:
            changes.setdefault("optim", {})[key] = value
    return Order(
        options.name,
        options.models,
        options.runs,
        options.data or options.rounds / "data",
        options.rounds,
        rules.from_options(options),
        not options.no_suspects,
        Wanted(
            options.name,
            recent_share=options.recent_share,
            new_class_from=options.new_class_from,
        ),
        options.at_least,
        options.allowed_loss,
        options.require_gain,
        changes,
        settings(options),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Review by rule what people said, merge what was accepted into the next version of the data, go on "
        "training from the served version, compare on held-out pictures and on recent feedback, and promote the result "
        "or refuse it. Interrupted, the same command goes on."
    )
    parser.add_argument("name", help="model name")
    parser.add_argument("--models", type=Path, required=True, help="model repository that is served")
    add_store(parser)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where `taxon train` wrote (default: runs)")
    parser.add_argument(
        "--data",
        type=Path,
        help="versions of the data, not among the pictures (default: data in --rounds)",
    )
    parser.add_argument("--rounds", type=Path, default=Path("rounds"), help="folder of the rounds (default: rounds)")
    parser.add_argument(
        "--quiet", action="store_true", help="say nothing but refusals and faults; the rest is in a log"
    )
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    parser.add_argument("--abandon", action="store_true", help="give up the round that was interrupted, and stop")
    parser.add_argument(
        "--at-least",
        type=ranges.whole(1, 10**9),
        default=1,
        metavar="COUNT",
        help="new or changed pictures, below which there is nothing to do (default: 1)",
    )
    parser.add_argument(
        "--recent-share",
        type=ranges.number(0.0, 0.9),
        default=Wanted().recent_share,
        help="of the new pictures, to judge by until the next round (default: 0.2)",
    )
    parser.add_argument(
        "--new-class-from",
        type=ranges.whole(5, 10**9),
        default=Wanted().new_class_from,
        metavar="COUNT",
        help="pictures from which a new label becomes a class (default: 20)",
    )
    parser.add_argument(
        "--allowed-loss",
        type=ranges.share,
        default=0.0,
        metavar="SHARE",
        help="accuracy that may be lost, in all and on each slice (default 0)",
    )
    parser.add_argument("--require-gain", action="store_true", help="refuse what is not better beyond chance")
    parser.add_argument("--no-suspects", action="store_true", help="do not estimate anew which labels are wrong")
    parser.add_argument("--epochs", type=ranges.whole(1, 10**6), help="instead of the recipe's")
    parser.add_argument("--lr", type=ranges.number(0.0, 1e6, above=True), help="instead of the recipe's")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="any option of `taxon train`"
    )
    rules.add_rules(parser)
    add_settings(parser)
    return parser
