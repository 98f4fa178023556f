"""The command `taxon classify`: pictures and folders of pictures in, a table or JSON lines out."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon.client import DEFAULT_TIMEOUT_S, AsyncClient
from taxon.errors import TaxonError
from taxon.v1 import classification_service_pb2 as pb

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask of the server, the same for every picture."""

    model: str = ""
    version: str = ""
    max_results: int = 0
    min_score: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One picture and its answer, or why there is none."""

    path: Path
    answer: pb.ClassifyResponse | None
    error: TaxonError | OSError | None = None

    @property
    def label(self) -> str:
        """The best label; empty if the model knows none, or if there was an error."""
        if self.answer is None or self.answer.unknown or not self.answer.classifications:
            return ""
        return self.answer.classifications[0].label

    @property
    def true_label(self) -> str:
        """What the picture's folder says that it is."""
        return self.path.parent.name


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 1 if a picture got no answer, or 2 if there is none to send."""
    options = _parser().parse_intermixed_args(argv)
    try:
        paths = find_pictures(options.paths)
    except FileNotFoundError as error:
        sys.stderr.write(f"taxon classify: {error}\n")
        return 2
    choice = Choice(options.model, options.version, options.max_results, options.min_score)
    rows = asyncio.run(classify_files(paths, options.server, choice, options.timeout_s, options.concurrency))
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


async def classify_files(
    paths: Iterable[Path], server: str, choice: Choice, timeout_s: float, concurrency: int
) -> list[Row]:
    """Sends every file, `concurrency` at a time; the rows are in the order of the paths."""
    slots = asyncio.Semaphore(concurrency)
    async with AsyncClient(server, timeout_s=timeout_s) as client:

        async def classify(path: Path) -> Row:
            async with slots:
                try:
                    answer = await client.classify(
                        path,
                        model=choice.model,
                        version=choice.version,
                        max_results=choice.max_results,
                        min_score=choice.min_score,
                    )
                except (TaxonError, OSError) as error:
                    return Row(path, None, error)
                return Row(path, answer)

        return list(await asyncio.gather(*map(classify, paths)))


def to_table(rows: Iterable[Row], *, labelled: bool) -> Table:
    """Draws the rows; with `labelled`, beside what their folders say."""
    table = Table(show_edge=False)
    for heading in ("picture", *(["true label"] if labelled else []), "answer", "score", "next best"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for row in rows:
        mark = "[red]" if labelled and row.label != row.true_label else ""
        path, truth = escape(str(row.path)), [escape(row.true_label)] if labelled else []
        if row.answer is None:
            table.add_row(path, *truth, f"[red]{escape(str(row.error))}", "", "")
            continue
        best, *others = row.answer.classifications or [pb.Classification()]
        answer = "unknown" if row.answer.unknown else best.label
        next_best = ", ".join(f"{other.label} {other.score:.3f}" for other in others[:2])
        table.add_row(path, *truth, mark + escape(answer or "none"), f"{best.score:.4f}", escape(next_best))
    return table


def to_json(row: Row) -> dict[str, object]:
    """One JSON object for a row: `path` and either `response` (the API's message) or `error`."""
    if row.answer is None:
        reason = getattr(row.error, "reason", "")
        return {"path": str(row.path), "error": {"reason": reason, "message": str(row.error)}}
    return {
        "path": str(row.path),
        "response": MessageToDict(
            row.answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Send pictures to a server and print what it says they are.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder of pictures")
    parser.add_argument("--server", default="localhost:50051", help="host:port")
    parser.add_argument("--model", default="", help="name of the model; empty for the server's only one")
    parser.add_argument("--version", default="", help="a number or a label such as stable; empty for the default")
    parser.add_argument("--max-results", type=int, default=3, help="classes to return per picture")
    parser.add_argument("--min-score", type=float, help="lowest score to return, in [0, 1]")
    parser.add_argument("--labelled", action="store_true", help="folders name the true labels: count the accuracy")
    parser.add_argument("--json", action="store_true", help="print one JSON object per picture instead of a table")
    parser.add_argument("--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, help="seconds per picture")
    parser.add_argument("--concurrency", type=int, default=8, help="pictures under way at once")
    return parser
