"""The command `taxon advise`: labelled pictures in, a backbone to take and what more pictures would bring out."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import ranges
from taxon.training.errors import TrainingError

PICTURES, FOLDS = 2000, 5


def main(argv: list[str]) -> int:
    """`taxon advise`: 0 when a backbone is recommended, 1 when none can be, 2 when it cannot be done as asked."""
    parser = argparse.ArgumentParser(
        description="Say which pretrained network suits labelled pictures, by linear probes on its features and by "
        "what its graph costs here, and how much more pictures would bring. Downloads nothing."
    )
    parser.add_argument("--data", metavar="SOURCE", required=True, help="as for `taxon train`; one label a picture")
    parser.add_argument(
        "--candidates",
        metavar="LIST",
        help="separated by commas: model names whose weights are on this machine, MODEL=FILE, weights files called "
        "after their model, run folders, MODEL=none for random weights (default: all of torchvision's and timm's that "
        "are on this machine, and random ones as a floor)",
    )
    parser.add_argument(
        "--latency-ms",
        type=ranges.number(0.0, 1e6, above=True),
        metavar="MS",
        help="largest median time of one picture in the network; any by default",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="cpu", help="that would serve (default: cpu)"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("advice"), help="(default: advice)")
    parser.add_argument(
        "--pictures",
        type=ranges.whole(1, 10**9),
        default=PICTURES,
        help=f"looked at, at most, of each class its share (default: {PICTURES})",
    )
    parser.add_argument(
        "--folds", type=ranges.whole(2, 100), default=FOLDS, help=f"of cross-validation (default: {FOLDS})"
    )
    parser.add_argument("--color", choices=("rgb", "grayscale"), default="rgb", help="what networks see (default: rgb)")
    parser.add_argument(
        "--image-size",
        type=ranges.whole(1, 4096),
        metavar="PIXELS",
        help="side of the pictures, for all that are no runs, as for `taxon train` (default: that of the weights)",
    )
    parser.add_argument(
        "--cache-folder", metavar="FOLDER", type=Path, default=Path("runs/.cache"), help="(default: runs/.cache)"
    )
    parser.add_argument("--threads", type=ranges.whole(0, 4096), default=0, help="of torch; 0: it decides (default: 0)")
    options = parser.parse_args(argv)
    words = None if options.candidates is None else _words(options.candidates)
    if words == []:
        parser.error("argument --candidates: names none")
    from taxon.training.advice.advise import Question, advise  # after what can be refused at once: it draws and fits
    from taxon.training.advice.page import write_advice

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    question = Question(
        source=options.data,
        words=words,
        latency_ms=options.latency_ms,
        device=options.device,
        pictures=options.pictures,
        folds=options.folds,
        color=options.color,
        image_size=options.image_size,
        cache_folder=options.cache_folder,
        threads=options.threads,
    )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        found = advise(question, say)
        write_advice(options.out, found)
    except TrainingError as error:
        sys.stderr.write(f"taxon advise: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"taxon advise: {error.filename or options.out}: {error.strerror or error}\n")
        return 2
    from taxon.training.advice.page import curve_sentences, row, train_command

    table = Table(box=None, header_style="bold")
    for column in ("backbone", "weights", "accuracy", "95 % interval", "ms for 1", "ms for 8", "MiB", "file MiB"):
        table.add_column(column, overflow="fold")
    for one in found.judged:
        table.add_row(*map(escape, row(one)))
    console.print(table)
    more = [part.label for part in found.needs if part.need == "more"]
    needed = [f"More pictures would help most: {', '.join(more[:10])}."] if more else []
    for line in (*found.recommendation.reasons, *curve_sentences(found.curve), *needed):
        say(line)
    if chosen := found.recommendation.chosen:
        say(f"fine-tune it: {train_command(found, chosen)}")
    say(f"page: {options.out / 'index.html'}")
    return 0 if chosen else 1


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
