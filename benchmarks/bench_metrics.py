"""What do metrics cost a server?

    python -m benchmarks.bench_metrics --models FOLDER [--model digits]… [--rounds 5] [--seconds 6] [--quick]
        [--out FILE]

Every round starts one server after another, in an order that turns from round to round: one that counts nothing
(`unmetered`), one as it is (`metered`), and one whose page is fetched every second (`scraped`; a Prometheus usually
comes every 15). Each answers the same closed loop; digits, of which metrics are the largest part, is the worst case.
Figures are medians over the rounds, `…_of_unmetered` those of the rounds' own ratios: rate, and CPU time of an answer.
The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import threading
import urllib.request
from pathlib import Path

from benchmarks import bundles
from benchmarks.bench_limit import pictures
from benchmarks.bench_peers import free_port
from benchmarks.bench_service import served, watched, write_requests
from benchmarks.conditions import conditions, tell

KINDS = ("unmetered", "metered", "scraped")
SCRAPE_S = 1.0


def scrape(page: str, over: threading.Event) -> None:
    """Fetches the page until it is over."""
    while not over.wait(SCRAPE_S):
        with urllib.request.urlopen(page, timeout=10) as opened:
            opened.read()


def one_server(kind: str, options: argparse.Namespace, model: str, bodies: list[str]) -> dict[str, float]:
    """Rate and CPU time of one kind."""
    port, over = free_port(), threading.Event()
    program = "benchmarks.unmetered" if kind == "unmetered" else "taxon.cli"
    with served(options.models, model, ["--metrics-port", str(port)], program=program) as (pid, address, _):
        words = f"http://127.0.0.1:{port}/metrics", over
        scraping = threading.Thread(target=scrape, args=words) if kind == "scraped" else None
        if scraping:
            scraping.start()
        figures = watched(pid, address, bodies, callers=64, seconds=options.seconds, warmup_s=1.0)
        over.set()
        if scraping:
            scraping.join()
    return {"per_s": figures["answered_per_s"], "cpu_ms": figures["cpu_ms"]}


def compared(options: argparse.Namespace, model: str, folder: Path) -> dict[str, float]:
    """All rounds of one model."""
    bodies = write_requests(folder, model, pictures(None, model))
    rounds = []
    for number in range(options.rounds):
        turn = number % len(KINDS)
        order = [*KINDS[turn:], *KINDS[:turn]]
        rounds.append({kind: one_server(kind, options, model, bodies) for kind in order})
        print(model, json.dumps(rounds[-1]), flush=True)
    median = statistics.median
    told = {f"{kind}_per_s": median(each[kind]["per_s"] for each in rounds) for kind in KINDS}
    for kind in KINDS[1:]:
        for figure in ("per_s", "cpu_ms"):
            ratios = [each[kind][figure] / each["unmetered"][figure] for each in rounds]
            told[f"{kind}_{figure}_of_unmetered"] = round(median(ratios), 4)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="of benchmarks.bundles; what is missing is made")
    parser.add_argument("--model", action="append", help="default: digits and mobilenet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--quick", action="store_true", help="one short round of digits: only whether it works")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    models = options.model or ["digits", "mobilenet"]
    if options.quick:
        options.rounds, options.seconds, models = 1, 1.0, models[:1]
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            bundles.build(options.models, model)
        report = {
            "benchmark": "metrics",
            "rounds": options.rounds,
            "seconds": options.seconds,
            "models": {model: compared(options, model, Path(folder)) for model in models},
            **conditions(),
        }
    tell(report, options.out)


if __name__ == "__main__":
    main()
