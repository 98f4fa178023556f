"""`taxon classify FOLDER|LIST --out TABLE`: files → a journal → the table. The same command goes on after any end."""

import argparse
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from taxon import connection
from taxon.bundle import version_labels
from taxon.choice import Choice
from taxon.picture_files import printable
from taxon.table import processes, served, writing
from taxon.table.files import LeftOut, Source, parted
from taxon.table.journal import SUFFIX, Journal
from taxon.table.rows import Row

Answers = Callable[[Iterator[list[str]]], Iterator[list[Row]]]
"""Names of files in chunks → their rows as they are done."""


@dataclass
class Counts:
    """Of files."""

    done: int = 0
    failed: int = 0


class Rate(ProgressColumn):
    """Files a second since this run began, not since the first one."""

    def render(self, task: Task) -> Text:
        """Draws it."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s", style="progress.data.speed")


def run(options: argparse.Namespace) -> int:
    """Runs the command. Returns 0, or 1 if a file got no answer.

    Args:
        options: See `taxon.classify`.

    Raises:
        OSError: Something cannot be read or written.
        ValueError: The options do not fit together, or not to what was begun.
        TaxonError: The server is away for too long, or refuses.
    """
    source, out = _source(options.paths), options.out
    writing.check(out)
    if options.models:
        processes.check()
    path = out.with_name(out.name + SUFFIX)
    if out.exists() and not path.exists():
        raise ValueError(f"{out} is there already: remove it, or choose another --out")
    journal = Journal(path)
    try:
        settings = _settings(options, source, journal)
        answers = _here(options, source, settings) if options.models else _there(options, source, settings)
        left_out = LeftOut()
        counts = Counts(*journal.resume())
        if counts.done:
            sys.stderr.write(f"taxon classify: {counts.done:,} files are done already, in {journal.path}\n")
        _answer_all(source, journal, answers, left_out, counts)
        _tell(left_out, source)
        if not counts.done:
            raise FileNotFoundError(f"{printable(source.place)} holds no picture")
        writing.write(out, journal.rows(), settings["model"], settings["version"])
        journal.remove()
    finally:
        journal.close()
    sys.stdout.write(f"{out}: {counts.done:,} files, {counts.failed:,} of them without an answer\n")
    return 1 if counts.failed else 0


def _source(paths: list[Path]) -> Source:
    if len(paths) != 1:
        raise ValueError("with --out give one folder, or one list of files")
    return Source(paths[0])


def _settings(options: argparse.Namespace, source: Source, journal: Journal) -> dict[str, str]:
    """What every row is made with, the version among it. What was begun with other settings cannot go on with these."""
    asked = {
        "source": str(source.place.absolute()),
        "models": str(options.models.absolute()) if options.models else "",
        "server": "" if options.models else options.server,
        "asked_model": options.model,
        "asked_version": options.version,
        "max_results": str(options.max_results),
        "min_score": str(options.min_score),
        "variant": options.variant if options.models else "",
    }
    begun = journal.settings
    if not begun:
        if options.models:
            model, version = version_labels.named(options.models, options.model, options.version)
            begun = asked | {"model": model, "version": str(version)}
        else:
            server, choice = connection.from_options(options), Choice(options.model, options.version)
            model, pinned = served.pinned(server, choice, options.timeout_s)
            begun = asked | {"model": model, "version": pinned}
        journal.begin(begun)
    different = [name for name, value in asked.items() if begun[name] != value and name != "server"]
    if different:
        was = ", ".join(f"{name.removeprefix('asked_')} {(begun[name] or 'none')!r}" for name in different)
        raise ValueError(f"{journal.path} was begun with {was}: go on with that, or remove it to begin anew")
    return begun


def _here(options: argparse.Namespace, source: Source, settings: dict[str, str]) -> Answers:
    given = {
        "models": settings["models"],
        "model": settings["model"],
        "version": settings["version"],
        "max_results": options.max_results,
        "min_score": options.min_score,
        "variant": options.variant,
        "base": source.base,
    }
    return lambda chunks: processes.answers(chunks, given, options.workers)


def _there(options: argparse.Namespace, source: Source, settings: dict[str, str]) -> Answers:
    server = connection.from_options(options)
    choice = Choice(settings["model"], settings["version"], options.max_results, options.min_score)
    return lambda chunks: served.answers(chunks, source.base, server, choice, options.timeout_s, options.concurrency)


def _answer_all(source: Source, journal: Journal, answers: Answers, left_out: LeftOut, counts: Counts) -> None:
    """Every file that has no row yet gets one."""
    resumes, done_before = counts.done > 0, counts.done

    def fresh() -> Iterator[list[str]]:
        for chunk in source.chunks(left_out):
            names, bad = parted(chunk)
            if bad:
                bad_rows = {row.path: row for row in bad}
                keep([bad_rows[path] for path in journal.new([*bad_rows], keep=source.is_list)])
            if resumes or source.is_list:
                names = journal.new(names, keep=source.is_list)
            if names:
                yield names

    with _progress() as progress:
        bar = progress.add_task("", total=None, failed=counts.failed)
        counting = threading.Thread(target=_count, args=(source, progress, bar, done_before), daemon=True)

        def keep(rows: list[Row]) -> None:
            journal.add(rows)
            counts.done += len(rows)
            counts.failed += sum(bool(row.error) for row in rows)
            progress.update(bar, completed=counts.done - done_before, failed=counts.failed)

        if not progress.disable:
            counting.start()
        for rows in answers(fresh()):
            keep(rows)


def _count(source: Source, progress: Progress, bar: TaskID, done_before: int) -> None:
    """Counts what is to be done while it is being done."""
    total = sum(1 for _ in source.names())
    progress.update(bar, total=max(0, total - done_before))


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("rest"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]:,} without an answer"),
        console=console,
        disable=not console.is_terminal,
        refresh_per_second=2,
        speed_estimate_period=60,
    )


def _tell(left_out: LeftOut, source: Source) -> None:
    for reason, count in left_out.count.items():
        first = printable(left_out.first[reason])
        sys.stderr.write(f"taxon classify: left out {count:,} in {source.place}, the first {first}: {reason}\n")
