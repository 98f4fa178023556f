"""The command `taxon tune`: tries settings on real servers on this machine, and writes down which to use."""

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from taxon import ranges
from taxon.bench import made_pictures
from taxon.bench.asking import Asking, ask
from taxon.bench.command import add_load_options
from taxon.bench.http2 import Target, message
from taxon.bench.load import Plan
from taxon.bench.running import Runs
from taxon.bench.wire import peer
from taxon.bundle import store
from taxon.bundle.manifest import BundleError
from taxon.connection import Connection
from taxon.errors import TaxonError
from taxon.tuning import evidence
from taxon.tuning.evidence import Asked
from taxon.tuning.search import Measured, search
from taxon.tuning.server import ServerError, Serving, serving
from taxon.tuning.settings import Tried, alternatives
from taxon.tuning.variants import choices

WARM_UP_SHARE = 0.2
"""Of a run, before each: what the run before has left in the queue is gone then."""
CANNOT = (ServerError, TaxonError, BundleError, OSError, ValueError)


Start = Callable[[Path, str, Sequence[str]], AbstractContextManager[Serving]]


def main(argv: list[str], start: Start = serving) -> int:
    """Runs the command. Returns 0, 1 if nothing keeps the objective, or 2 if there is nothing to tune.

    Args:
        argv: Its words.
        start: Starts a server; tests have another.
    """
    before = signal.signal(signal.SIGTERM, _leave)  # or the server under trial would stay behind
    try:
        return _tune(argv, start)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)


def _tune(argv: list[str], start: Start) -> int:
    own, behind = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options = _parser().parse_args(own)
    console = Console()
    try:
        pictures = made_pictures.of(options.pictures)
        _check_named(options.models, options.model)
        with start(options.models, options.model, behind) as usual:
            model, layout = usual.model, usual.layout
            asking = ask(Connection(usual.address), "taxon", model.name, "", pictures)
        manifest = store.read(options.models, model.name, int(model.version)).manifest
        variant, variants = choices(manifest, options.min_accuracy, model)
        default = Tried(variant=variant)
        others = [*alternatives(default, layout, variants)]
        console.print(f"{model.name}/{model.version}, {asking.what}: {len(others)} changes to try", highlight=False)
        found = search(default, others, Measuring(options, behind, asking, console, default, start))
        asked = Asked(
            f"{model.name}/{model.version}",
            asking.what,
            options.p99_ms,
            options.min_accuracy,
            tuple(behind),
            layout.cores,
            options.seconds,
        )
        evidence.write(options.out, asked, found)
    except CANNOT as error:
        sys.stderr.write(f"taxon tune: {error}\n")
        return 2
    console.print(f"\n{evidence.conclusion(asked, found)}", highlight=False)
    console.print(f"{options.out / evidence.CONFIGURATION}, and beside it why", highlight=False)
    return 0 if found.rate else 1


def _check_named(models: Path, name: str) -> None:
    """Before a server has loaded them all.

    Raises:
        ValueError: There is no such bundle, or there are several and none is named.
        OSError: The folder cannot be read.
    """
    names = store.names(models)
    if name and name not in names:
        raise ValueError(f"{models} has no bundle {name}; it has {names}")
    if not name and len(names) > 1:
        raise ValueError(f"{models} has {len(names)} models: name one of {names} by --model")


class Measuring:
    """Measures candidates, each on a server of its own. The same round of each sees the same arrivals."""

    def __init__(
        self,
        options: argparse.Namespace,
        flags: list[str],
        asking: Asking,
        console: Console,
        default: Tried,
        start: Start,
    ) -> None:
        self._options, self._flags, self._console, self._default = options, flags, console, default
        self._start = start
        self._path = asking.path
        self._bodies = [message(request) for request in asking.requests]
        self._rounds = Counter[tuple[Tried, str]]()

    def __call__(self, tried: Tried, stage: str, precise: bool) -> Measured:
        """See `search.Measure`. A candidate with which no server starts answers nothing.

        Raises:
            ServerError: That is the default.
        """
        self._rounds[tried, stage] += 1
        try:
            with self._start(self._options.models, self._options.model, [*self._flags, *tried.flags]) as server:
                seen = self._seen(server, tried, stage, precise)
        except ServerError as error:
            if tried == self._default:
                raise
            self._console.print(f"{stage:10} {tried}: {error}", highlight=False, markup=False)
            return Measured(tried, stage, 0.0, 0.0, None)
        line = f"{stage:10} {tried!s:24} {seen.rate:7.1f} calls/s   saturated {seen.saturated:7.1f}   {seen.variant}"
        self._console.print(line, highlight=False, markup=False)
        return seen

    def _seen(self, server: Serving, tried: Tried, stage: str, precise: bool) -> Measured:
        seconds = self._options.seconds if precise else self._options.seconds / 2
        seed = self._rounds[tried, stage] + (1000 if stage == "prediction" else 0)
        plan = Plan(seconds, WARM_UP_SHARE * seconds, connections=self._options.connections, seed=seed)
        target = Target(peer(server.address), server.address, self._path)
        found = Runs(target, self._bodies, plan).capacity(self._options.p99_ms / 1e3)
        return Measured(tried, stage, found.rate, found.saturated, found.p99_ms, server.model.variant)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] MODELS --p99-ms MS [options] [-- FLAGS]",
        description="Find out with which settings `taxon serve` answers most calls on this machine while 99 % of them "
        "are answered in time: fronts, workers or decoders, batch size, variant, one by one and together, each on a "
        "real server on loopback, beside the defaults. Takes about ten minutes of a machine that does nothing else. "
        "Writes the configuration that it recommends, and the evidence; the defaults may be the best.",
        epilog="What stands behind -- goes to every server, such as -- --device cuda.",
    )
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of bundles")
    parser.add_argument(
        "--p99-ms",
        type=ranges.number(0.0, 1e6, above=True),
        required=True,
        metavar="MS",
        help="within which 99 %% of the calls are to be answered",
    )
    parser.add_argument(
        "--min-accuracy",
        type=ranges.share,
        help="leave out variants whose accuracy, as export has recorded it, is lower; default: serve any",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("tuned"), help="folder for what is found (default: %(default)s)"
    )
    add_load_options(parser, seconds=3.0)
    return parser
