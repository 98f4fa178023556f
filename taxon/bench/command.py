"""The command `taxon bench`: how much a server answers, and how fast."""

import argparse
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from taxon import connection, ranges
from taxon.bench import made_pictures, show
from taxon.bench.asking import ask
from taxon.bench.capacity import SHARE
from taxon.bench.figures import Figures
from taxon.bench.http2 import Target, message
from taxon.bench.load import Plan
from taxon.bench.running import Runs
from taxon.bench.wire import peer
from taxon.errors import TaxonError
from taxon.mistaken import in_words

CALLERS = (1, 16, 64)
FRACTIONS = (0.5, 0.8, 0.95, 1.2)
"""Of what was answered in a closed loop: the open loops of a bench that is told no rates."""
MOST_CALLERS = 100_000
MOST_RATE = 1e6


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, 1 if a run had no answer at all, or 2 if there is nothing to measure."""
    options = _parser().parse_args(argv)
    try:
        if options.plot:
            _check_plot(options.plot)
        server = connection.from_options(options)
        pictures = made_pictures.of(options.pictures)
        to = peer(options.server, _tls(options), options.tls_server_name)
        asking = ask(server, options.protocol, options.model, options.version, pictures)
    except (TaxonError, OSError, ValueError) as error:
        sys.stderr.write(f"taxon bench: {in_words(error)}\n")
        return 2
    target = Target(to, options.tls_server_name or options.server, asking.path, server.metadata)
    plan = Plan(
        options.seconds,
        options.warm_up_s,
        connections=options.connections,
        deadline_s=options.deadline_ms / 1e3,
        seed=options.seed,
    )
    runs = Runs(target, [message(request) for request in asking.requests], plan)
    told: dict[str, Any] = {"server": options.server, "model": asking.model, "sent": asking.what}
    told |= _measure(runs, options, Console(stderr=True))
    title = f"{options.server}: {asking.model}, {asking.what}"
    if options.json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _print(Console(), title, told)
    if options.plot:
        show.plot(told["runs"], title, options.plot)
    return 0 if all(row["answered"] for row in told["runs"]) else 1


def _measure(runs: Runs, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Every run in turn, and the search for a rate if it is wanted."""
    usual = not (options.callers or options.rate or options.p99_ms)
    rows: list[dict[str, Any]] = []

    def note(load: str, kind: str, amount: float, measure: Callable[[Any], Figures]) -> None:
        with console.status(f"{load}, {options.seconds:g} s …"):
            rows.append({"load": load, kind: amount, "seconds": options.seconds, **measure(amount)})

    for callers in options.callers or (CALLERS if usual else ()):
        note(f"{callers} caller{'s' * (callers > 1)}", "callers", callers, runs.closed)
    best = max((row["answered_per_s"] for row in rows), default=0.0)
    for rate in options.rate or ([fraction * best for fraction in FRACTIONS if best] if usual else ()):
        note(f"{rate:.0f}/s", "rate", rate, runs.open)
    if not options.p99_ms:
        return {"runs": rows}
    with console.status(f"looking for the rate at which p99 is {options.p99_ms:g} ms …"):
        found = runs.capacity(options.p99_ms / 1e3)
    probes = [{"rate": probe.rate, "within": probe.within, "p99_ms": probe.p99_ms} for probe in found.probes]
    highest = {"p99_ms": options.p99_ms, "rate": found.rate, "saturated_per_s": found.saturated, "probes": probes}
    return {"runs": rows, "highest": highest}


def _print(console: Console, title: str, told: dict[str, Any]) -> None:
    console.print(title, highlight=False, markup=False)
    if told["runs"]:
        console.print(show.table(told["runs"]))
    for line in (*show.failures(told["runs"]), *show.doubts(told["runs"])):
        console.print(line, highlight=False, markup=False)
    if highest := told.get("highest"):
        if highest["rate"]:
            text = f"{SHARE:.0%} within {highest['p99_ms']:g} ms up to {highest['rate']:.0f} calls/s"
        else:
            text = f"at no rate are {SHARE:.0%} answered within {highest['p99_ms']:g} ms"
        console.print(f"{text} (saturated {highest['saturated_per_s']:.0f}/s)", highlight=False)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not (options.tls or options.tls_server_name or options.tls_ca or options.tls_cert):
        return None
    context = ssl.create_default_context(cafile=options.tls_ca)
    context.set_alpn_protocols(["h2"])
    if options.tls_cert:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _check_plot(file: Path) -> None:
    """Before any measuring."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ValueError(f"--plot: {error}; install it with: pip install matplotlib") from None
    known = Figure().canvas.get_supported_filetypes()
    if file.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"--plot {file}: the ending must be one of {', '.join(sorted(known))}")
    if not file.absolute().parent.is_dir():
        raise ValueError(f"--plot {file}: there is no folder {file.parent}")


def _list(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [read(part) for part in text.split(",")]


def add_load_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """What `taxon tune` has too."""
    parser.add_argument("--model", default="", help="name of the model; empty for the only one")
    parser.add_argument(
        "--pictures", type=Path, metavar="PATH", help="a folder of pictures, or one; default: made ones of some 100 kB"
    )
    parser.add_argument(
        "--seconds", type=ranges.seconds, default=seconds, help="of each run, after its warm-up (default: %(default)g)"
    )
    parser.add_argument(
        "--connections", type=ranges.whole(1, 1000), default=4, help="that calls are spread over (default: %(default)d)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure a server of taxon.v1 or of the Open Inference Protocol: closed loops of callers that wait "
        "for their answer, and open loops with Poisson arrivals, whose latencies count from when each call was due. "
        "Without --callers, --rate and --p99-ms: some of each. Goodput is what was answered within the deadline."
    )
    parser.add_argument("server", metavar="SERVER", help="HOST:PORT")
    parser.add_argument(
        "--callers",
        type=_list(ranges.whole(1, MOST_CALLERS)),
        metavar="N,…",
        help="closed loops of so many callers",
    )
    parser.add_argument(
        "--rate",
        type=_list(ranges.number(0.0, MOST_RATE, above=True)),
        metavar="R,…",
        help="open loops of so many calls per second",
    )
    parser.add_argument(
        "--p99-ms",
        type=ranges.number(0.0, 1e6, above=True),
        metavar="MS",
        help="look for the highest rate at which 99 %% of the calls are answered within so many ms",
    )
    parser.add_argument(
        "--protocol", choices=("auto", "taxon", "open-inference"), default="auto", help="(default: %(default)s)"
    )
    parser.add_argument("--version", default="", help="of the model; empty for the default one")
    add_load_options(parser, seconds=5.0)
    parser.add_argument(
        "--warm-up-s", type=ranges.number(0.0, ranges.MOST_SECONDS), default=1.0, help="(default: %(default)g)"
    )
    parser.add_argument(
        "--deadline-ms",
        type=ranges.number(1.0, 1e6),
        default=1000.0,
        help="of a call in an open loop; callers wait 10 s or more (default: %(default)g)",
    )
    parser.add_argument("--seed", type=ranges.whole(0, 2**32), default=0, help="of the arrivals (default: %(default)d)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the open loops; needs matplotlib")
    connection.add_options(parser, server=False)
    return parser
