"""The command `taxon classify`: pictures, folders of pictures and CSV files in, a table or JSON lines out."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import csv_rows
from taxon.choice import Choice
from taxon.client import DEFAULT_TIMEOUT_S, AsyncClient
from taxon.csv_rows import Fields
from taxon.errors import TaxonError
from taxon.v1 import classification_service_pb2 as pb

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}


@dataclass(frozen=True, slots=True)
class Input:
    """A picture, or one row of a CSV file."""

    path: Path
    number: int = 0
    """Of the row, from 1; 0 for a picture."""
    fields: Fields | None = None
    """Of the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its answer, or why there is none."""

    path: Path
    answer: pb.ClassifyResponse | None
    error: TaxonError | OSError | ValueError | None = None
    number: int = 0
    """Of the row of a CSV file, from 1; 0 for a picture."""
    column_label: str = ""
    """What a CSV file's last column says that it is."""

    @property
    def label(self) -> str:
        """The best label; empty if the model knows none, or if there was an error."""
        if self.answer is None or self.answer.unknown or not self.answer.classifications:
            return ""
        return self.answer.classifications[0].label

    @property
    def true_label(self) -> str:
        """What the picture's folder, or the row's last column, says that it is."""
        return self.column_label if self.number else self.path.parent.name

    @property
    def name(self) -> str:
        """The path, and the row if it is one."""
        return f"{self.path} row {self.number}" if self.number else str(self.path)


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 1 if an input got no answer, or 2 if there is none to send."""
    options = _parser().parse_intermixed_args(argv)
    try:
        inputs = find_inputs(options.paths)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"taxon classify: {error}\n")
        return 2
    choice = Choice(options.model, options.version, options.max_results, options.min_score)
    rows = asyncio.run(classify_inputs(inputs, options.server, choice, options.timeout_s, options.concurrency))
    if options.json:
        for row in rows:
            sys.stdout.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")
    else:
        console = Console()
        console.print(to_table(rows, labelled=options.labelled))
        if options.labelled:
            correct = sum(row.label == row.true_label for row in rows)
            console.print(f"accuracy {correct / len(rows):.2%} ({correct} of {len(rows)})")
    return 1 if any(row.error for row in rows) else 0


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Returns the files named, and the pictures below the folders named, each in order.

    Raises:
        FileNotFoundError: A path does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"{path} holds no file that ends in {', '.join(sorted(SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return found


def find_inputs(paths: Iterable[Path]) -> list[Input]:
    """As `find_pictures`, with every row of a CSV file in its place.

    Raises:
        OSError: A file cannot be read, or see `find_pictures`.
        ValueError: See `csv_rows.read_rows`.
    """
    found: list[Input] = []
    for path in find_pictures(paths):
        if path.suffix.lower() == ".csv":
            found += [Input(path, number, fields) for number, fields in enumerate(csv_rows.read_rows(path), 1)]
        else:
            found.append(Input(path))
    return found


async def classify_inputs(
    inputs: Sequence[Input], server: str, choice: Choice, timeout_s: float, concurrency: int
) -> list[Row]:
    """Sends every input, `concurrency` at a time; the rows are in their order."""
    slots = asyncio.Semaphore(concurrency)
    taken = pb.FeaturesInput()
    async with AsyncClient(server, timeout_s=timeout_s) as client:
        if any(given.fields is not None for given in inputs):
            try:
                taken = (await client.get_model(choice.model_name, choice.model_version)).input.features
            except TaxonError as error:
                return [Row(given.path, None, error, given.number) for given in inputs]

        async def classify(given: Input) -> Row:
            path, fields, names = given.path, given.fields, taken.feature_names
            truth = "" if fields is None else csv_rows.label(fields, names)
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


def to_table(rows: Iterable[Row], *, labelled: bool) -> Table:
    """Draws the rows; with `labelled`, beside what their folders say."""
    table = Table(show_edge=False)
    for heading in ("input", *(["true label"] if labelled else []), "answer", "score", "next best"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for row in rows:
        mark = "[red]" if labelled and row.label != row.true_label else ""
        path, truth = escape(row.name), [escape(row.true_label)] if labelled else []
        if row.answer is None:
            table.add_row(path, *truth, f"[red]{escape(str(row.error))}", "", "")
            continue
        best, *others = row.answer.classifications or [pb.Classification()]
        answer = "unknown" if row.answer.unknown else best.label
        next_best = ", ".join(f"{other.label} {other.score:.3f}" for other in others[:2])
        table.add_row(path, *truth, mark + escape(answer or "none"), f"{best.score:.4f}", escape(next_best))
    return table


def to_json(row: Row) -> dict[str, object]:
    """One JSON object for a row: `path`, of a CSV file `row`, and either `response` (the API's message) or `error`."""
    place = {"path": str(row.path)} | ({"row": row.number} if row.number else {})
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
    parser.add_argument("--server", default="localhost:50051", help="host:port")
    parser.add_argument("--model", default="", help="name of the model; empty for the server's only one")
    parser.add_argument("--version", default="", help="a number or a label such as stable; empty for the default")
    parser.add_argument("--max-results", type=int, default=3, help="classes to return per input")
    parser.add_argument("--min-score", type=float, help="lowest score to return, in [0, 1]")
    parser.add_argument(
        "--labelled",
        action="store_true",
        help="folders, or last columns, name the true labels: count the accuracy",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per input instead of a table")
    parser.add_argument("--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, help="seconds per input")
    parser.add_argument("--concurrency", type=int, default=8, help="inputs under way at once")
    return parser
