"""What does it cost a server to remember answers, and to capture some of their pictures?

    python -m benchmarks.bench_feedback --models FOLDER --model NAME [--store FOLDER] [--share 0.02] [--rounds 5]
        [--seconds 20] [--callers 64] [--out FILE]
    python -m benchmarks.bench_feedback --models FOLDER --model NAME --quick

Every round starts one server after another, in an order that turns from round to round: without feedback (`off`), with
it and no rule (`recall`), capturing a share of all pictures (`share`), and all of them (`all`: what the server cannot
keep without cost it must shed). Each answers the same closed loop of distinct photographs. Figures are medians over the
rounds; `…_of_off` is a kind's rate over that of `off` in the same round, and `…_kept` how many pictures its rounds kept
in all. The store should lie on the disk that production would use: what lies in memory has no fsync. The last line is
one JSON object.
"""

import argparse
import json
import statistics
import tempfile
from io import BytesIO
from pathlib import Path

from benchmarks.bench_service import served, watched, write_requests
from benchmarks.conditions import conditions
from taxon.bench.made_pictures import photo
from taxon.feedback.store import Store

KINDS = ("off", "recall", "share", "all")


def flags(kind: str, store: Path, share: float) -> list[str]:
    """Of `taxon serve`."""
    if kind == "off":
        return []
    sample = {"recall": 0.0, "share": share, "all": 1.0}[kind]
    return ["--feedback", str(store), "--feedback-sample", str(sample)]


def one_round(options: argparse.Namespace, bodies: list[str], order: list[str], root: Path) -> dict[str, dict]:
    """Rates and CPU time of each kind."""
    told = {}
    for kind in order:
        with tempfile.TemporaryDirectory(dir=root) as store:
            given = flags(kind, Path(store), options.share)
            with served(options.models, options.model, given) as (pid, address, _):
                figures = watched(
                    pid, address, bodies, callers=options.callers, seconds=options.seconds, warmup_s=options.warmup
                )
            kept = 0
            if kind != "off":
                opened = Store(Path(store))
                kept = opened.figures()["pictures"]
                opened.close()
        told[kind] = {
            "per_s": figures["answered"] / (options.seconds + options.warmup),
            "cpu_ms": figures["cpu_ms"],
            "p99_ms": figures["p99_ms"],
            "kept": kept,
        }
        print(kind, json.dumps(told[kind]), flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", type=Path, help="folder for stores; default: that of temporary files")
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="one short round: only whether it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warmup, options.pictures = 1, 2.0, 0.5, 32
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        encoded = []
        for seed in range(options.pictures):
            file = BytesIO()
            photo(seed).save(file, "JPEG", quality=90)
            encoded.append(file.getvalue())
        bodies = write_requests(Path(folder), options.model, encoded)
        for number in range(options.rounds):
            order = [*KINDS[number % len(KINDS) :], *KINDS[: number % len(KINDS)]]
            rounds.append(one_round(options, bodies, order, options.store or Path(folder)))
    result = {
        f"{kind}_{figure}": statistics.median(each[kind][figure] for each in rounds)
        for kind in KINDS
        for figure in ("per_s", "cpu_ms", "p99_ms")
    }
    for kind in KINDS[1:]:
        shares = [each[kind]["per_s"] / each["off"]["per_s"] for each in rounds]
        result |= {
            f"{kind}_of_off": statistics.median(shares),
            f"{kind}_of_off_least": min(shares),
            f"{kind}_kept": sum(each[kind]["kept"] for each in rounds),
        }
    told = json.dumps({**result, "rounds": options.rounds, "share": options.share, **conditions()})
    if options.out:
        options.out.write_text(told + "\n")
    print(told)


if __name__ == "__main__":
    main()
