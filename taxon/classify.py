"""The command `taxon classify`: pictures, folders of pictures and CSV files in, a table or JSON lines out; or, with
`--out`, any number of files (see `taxon.table`).
"""

import argparse
import asyncio
import codecs
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import connection, csv_rows, labelled_folder, picture_files, ranges
from taxon.choice import Choice
from taxon.client import DEFAULT_TIMEOUT_S, AsyncClient
from taxon.connection import Connection
from taxon.csv_rows import Fields
from taxon.errors import TaxonError
from taxon.mistaken import in_words
from taxon.picture_files import EXTENSIONS, check_name, composed, printable
from taxon.table import command
from taxon.v1 import classification_service_pb2 as pb

LABELS_SHOWN = 5
MOST_AT_ONCE = 1024
MOST_RESULTS = 2**31 - 1
MOST_WORKERS = 1024
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Input:
    """A picture, or one row of a CSV file."""

    path: Path
    number: int = 0
    """Of the row, from 1; 0 for a picture."""
    fields: Fields | None = None
    """Of the row."""
    label: str = ""
    """What a picture's folder says that it is; empty if nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its answer, or why there is none."""

    path: Path
    answer: pb.ClassifyResponse | None
    error: TaxonError | OSError | ValueError | None = None
    number: int = 0
    """Of the row of a CSV file, from 1; 0 for a picture."""
    true_label: str = ""
    """What the picture's folder, or the row's last column, says that it is."""

    @property
    def label(self) -> str:
        """The best label; empty if the model knows none, or if there was an error."""
        if self.answer is None or self.answer.unknown or not self.answer.classifications:
            return ""
        return self.answer.classifications[0].label

    @property
    def correct(self) -> bool:
        """Whether the best label is the true one."""
        return self.answer is not None and composed(self.label) == composed(self.true_label)

    @property
    def name(self) -> str:
        """The path, and the row if it is one."""
        return f"{printable(self.path)} row {self.number}" if self.number else printable(self.path)


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 1 if an input got no answer, or 2 if there is none to send."""
    options = _parser().parse_intermixed_args(argv)
    if options.out or options.models:
        return _to_file(options)
    try:
        inputs = find_inputs(options.paths, labelled=options.labelled)
        server = connection.from_options(options)
        choice = Choice(options.model, options.version, options.max_results, options.min_score)
        rows = asyncio.run(
            classify_inputs(inputs, server, choice, options.timeout_s, options.concurrency, labelled=options.labelled)
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"taxon classify: {in_words(error)}\n")
        return 2
    if options.json:
        shows_all = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        for row in rows:
            sys.stdout.write(json.dumps(to_json(row, labelled=options.labelled), ensure_ascii=not shows_all) + "\n")
    else:
        console = Console()
        console.print(to_table(rows, labelled=options.labelled))
        if options.labelled:
            console.print(accuracy(rows))
    return 1 if any(row.error for row in rows) else 0


def _to_file(options: argparse.Namespace) -> int:
    try:
        if not options.out:
            raise ValueError("--models goes with --out: a table is what it is for")
        if options.labelled or options.json:
            raise ValueError("--out goes with neither --labelled nor --json")
        return command.run(options)
    except KeyboardInterrupt:
        sys.stderr.write("taxon classify: stopped; the same command goes on\n")
        return INTERRUPTED
    except (OSError, ValueError, TaxonError) as error:
        sys.stderr.write(f"taxon classify: {in_words(error)}\n")
        return 2


def find_inputs(paths: Iterable[Path], *, labelled: bool = False) -> list[Input]:
    """The files named, and the pictures below the folders named, each in order; every row of a CSV file in its place.

    Args:
        paths: Files and folders.
        labelled: Folders are read as training reads them: their pictures have labels. A single picture's label is the
            name of its folder.

    Raises:
        OSError: A file cannot be read or does not exist, or a folder holds no picture.
        ValueError: See `csv_rows.read_rows` and `labelled_folder.read_class_or_classes`.
    """
    found: list[Input] = []
    for path in paths:
        if path.is_dir():
            found += _in_folder(path, labelled=labelled)
        elif not path.exists():
            raise FileNotFoundError(f"{printable(path)} does not exist")
        elif path.suffix.lower() == ".csv":
            found += [Input(path, number, fields) for number, fields in enumerate(csv_rows.read_rows(path), 1)]
        else:
            check_name(path)
            found.append(Input(path, label=labelled_folder.class_of(path.parent) if labelled else ""))
    return found


def _in_folder(folder: Path, *, labelled: bool) -> list[Input]:
    others: Sequence[tuple[Path, str]]
    if labelled:
        pairs, others = labelled_folder.read_class_or_classes(folder)
        found = [Input(path, label=label) for path, label in pairs]
    else:
        pictures, others = picture_files.pictures(folder)
        found = [Input(path) for path in pictures]
    if not found:
        raise FileNotFoundError(f"{printable(folder)} holds no file that ends in {', '.join(EXTENSIONS)}")
    left_out: dict[str, list[Path]] = {}
    for path, reason in others:
        left_out.setdefault(reason, []).append(path)
    for reason, paths in left_out.items():
        sys.stderr.write(f"taxon classify: left out {len(paths)} in {folder}, the first {paths[0]}: {reason}\n")
    return found


async def classify_inputs(
    inputs: Sequence[Input],
    server: Connection,
    choice: Choice,
    timeout_s: float,
    concurrency: int,
    *,
    labelled: bool = False,
) -> list[Row]:
    """Sends every input, `concurrency` at a time; the rows are in their order.

    Raises:
        ValueError: With `labelled`, an input has no true label, or the model knows none of them.
    """
    slots = asyncio.Semaphore(concurrency)
    taken = pb.FeaturesInput()
    async with AsyncClient(server, timeout_s=timeout_s) as client:
        if labelled or any(given.fields is not None for given in inputs):
            try:
                model = await client.get_model(choice.model_name, choice.model_version)
            except TaxonError as error:
                return [Row(given.path, None, error, given.number, given.label) for given in inputs]
            taken = model.input.features
            if labelled:
                _check_labels([(given, _truth(given, taken.feature_names)) for given in inputs], model)

        async def classify(given: Input) -> Row:
            path, fields, names = given.path, given.fields, taken.feature_names
            truth = _truth(given, names)
            async with slots:
                try:
                    answer = await client.classify(
                        path if fields is None else None,
                        features=None if fields is None else csv_rows.vector(fields, names, taken.feature_count),
                        model=choice.model_name,
                        version=choice.model_version,
                        max_results=choice.max_results,
                        min_score=choice.min_score,
                    )
                except (TaxonError, OSError, ValueError) as error:
                    return Row(path, None, error, given.number, truth)
                return Row(path, answer, None, given.number, truth)

        return list(await asyncio.gather(*map(classify, inputs)))


def _truth(given: Input, names: Sequence[str]) -> str:
    """`names` are those of the numbers that the model takes."""
    return given.label if given.fields is None else csv_rows.label(given.fields, names)


def _check_labels(labelled: Sequence[tuple[Input, str]], model: pb.Model) -> None:
    """Tells of true labels that the model cannot give, and of inputs without one, which could be neither right nor
    wrong.
    """
    if blank := [given for given, label in labelled if not label]:
        first = f"{printable(blank[0].path)}{f' row {blank[0].number}' if blank[0].number else ''}"
        raise ValueError(
            f"{len(blank)} of {len(labelled)} inputs have no true label, the first {first}: leave them out, or "
            "--labelled"
        )
    true_labels = {label for _, label in labelled}
    unknown = sorted(true_labels - {composed(label) for label in model.labels})
    if not unknown:
        return
    if len(unknown) == len(true_labels):
        raise ValueError(
            f"the model {model.name} knows none of the labels {unknown[:LABELS_SHOWN]}: is it another one?"
        )
    sys.stderr.write(f"taxon classify: {model.name} does not know {unknown[:LABELS_SHOWN]}: those count as wrong\n")


def to_table(rows: Iterable[Row], *, labelled: bool) -> Table:
    """Draws the rows; with `labelled`, beside what their folders say."""
    table = Table(show_edge=False)
    for heading in ("input", *(["true label"] if labelled else []), "answer", "score", "next best"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for row in rows:
        mark = "[red]" if labelled and not row.correct else ""
        path, truth = escape(row.name), [escape(row.true_label)] if labelled else []
        if row.answer is None:
            table.add_row(path, *truth, f"[red]{escape(str(row.error))}", "", "")
            continue
        best, *others = row.answer.classifications or [pb.Classification()]
        answer = "unknown" if row.answer.unknown else best.label
        next_best = ", ".join(f"{other.label} {other.score:.3f}" for other in others[:2])
        table.add_row(path, *truth, mark + escape(answer or "none"), f"{best.score:.4f}", escape(next_best))
    return table


def accuracy(rows: Sequence[Row]) -> str:
    """A line for people. What was declined, or not answered at all, is wrong in another way than a mistake."""
    correct = sum(row.correct for row in rows)
    unknown = sum(row.answer is not None and row.answer.unknown for row in rows)
    failed = sum(row.answer is None for row in rows)
    others = "".join(
        f", {count} {what}" for count, what in ((unknown, "unknown"), (failed, "without an answer")) if count
    )
    return f"accuracy {correct / len(rows):.2%} ({correct} of {len(rows)}{others})"


def to_json(row: Row, *, labelled: bool = False) -> dict[str, object]:
    """One JSON object for a row: `path`, of a CSV file `row`, with `labelled` `true_label`, and either `response` (the
    API's message) or `error`.
    """
    place: dict[str, object] = {"path": printable(row.path)} | ({"row": row.number} if row.number else {})
    if labelled:
        place["true_label"] = row.true_label
    if row.answer is None:
        reason = getattr(row.error, "reason", "")
        return {**place, "error": {"reason": reason, "message": str(row.error)}}
    return {
        **place,
        "response": MessageToDict(
            row.answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Send pictures, or rows of numbers, to a server and print what it says they are.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a picture, a folder of pictures, or a CSV file"
    )
    parser.add_argument("--model", default="", help="name of the model; empty for the server's only one")
    parser.add_argument("--version", default="", help="a number or a label such as stable; empty for the default")
    parser.add_argument(
        "--max-results", type=ranges.whole(0, MOST_RESULTS), default=3, help="classes to return per input"
    )
    parser.add_argument("--min-score", type=ranges.share, help="lowest score to return, in [0, 1]")
    parser.add_argument(
        "--labelled",
        action="store_true",
        help="folders (as for training, but for what is there to train on), or last columns, name the true labels: "
        "count the accuracy",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per input instead of a table")
    parser.add_argument("--timeout-s", type=ranges.seconds, default=DEFAULT_TIMEOUT_S, help="seconds per input")
    parser.add_argument("--concurrency", type=ranges.whole(1, MOST_AT_ONCE), default=8, help="inputs under way at once")
    table = parser.add_argument_group(
        "a table of many files",
        "of one folder, or of one list: a path on each line, "
        "relative to the list's folder. The same command goes on where one that was ended stopped.",
    )
    table.add_argument("--out", type=Path, metavar="FILE", help="write FILE, which ends in .parquet, .csv or .jsonl")
    table.add_argument(
        "--models", type=Path, metavar="FOLDER", help="ask no server, but run a model of this folder in processes here"
    )
    table.add_argument(
        "--variant", choices=("fp32", "fp16", "int8"), default="fp32", help="with --models: of the model"
    )
    table.add_argument(
        "--workers",
        type=ranges.whole(0, MOST_WORKERS),
        default=0,
        help="with --models: processes; 0: one for each core",
    )
    connection.add_options(parser)
    return parser
