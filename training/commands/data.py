"""Labelled pictures: `taxon data inspect` says what is wrong with them, `taxon data split` writes a split in which no
picture, and nothing that looks like it, is on both sides. Of a feedback store, `suspects` names labels that are likely
wrong, `next` what to label next, and `merge` writes the next version of the data.
"""

import argparse
import errno
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import ranges
from taxon.bundle.atomic_files import check_writable
from taxon.bundle.atomic_files import write as write_atomically
from taxon.feedback.errors import StoreError
from taxon.feedback.options import add_store, opened
from taxon.feedback.review import cases
from taxon.feedback.sealing import SealError
from taxon.training.config import AutoTask, DataOptions
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled
from taxon.training.dataset.doctor import Diagnosis, check_can_be_listed, diagnose, write_split
from taxon.training.dataset.sources import open_source
from taxon.training.errors import TrainingError
from taxon.training.reporting.inspect_page import write_page
from taxon.training.rounds import versions
from taxon.training.rounds.merge import Unchanged, Wanted, merge
from taxon.training.rounds.next_to_label import By, next_to_label
from taxon.training.rounds.suspects import suspects
from taxon.training.runs.folder import Run

TASK_HELP = str(DataOptions.model_fields["task"].description)
SHOWN = 20
"""Findings of one kind on the terminal; JSON has all."""
COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


def main(argv: list[str]) -> int:
    """`taxon data`: 0 sound, 1 errors found, 2 not usable as called."""
    parser = argparse.ArgumentParser(description="Check, split and merge labelled pictures; say what to label next.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="say what is wrong; exit code 1 if there are errors")
    inspect.add_argument("source", help=str(DataOptions.model_fields["source"].description))
    inspect.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    inspect.add_argument("--html", type=Path, metavar="FILE", help="write a page with thumbnails")
    inspect.add_argument("--task", choices=get_args(AutoTask), default="auto", help=TASK_HELP)
    split = commands.add_parser(
        "split", help="write a CSV list with a train/val split without duplicates across it; a test split stays one"
    )
    split.add_argument("source", help="as for inspect")
    split.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="in or above the pictures' folder")
    split.add_argument(
        "--val-fraction", type=ranges.number(0.001, 0.999), default=0.2, help="share of each class (default: 0.2)"
    )
    split.add_argument(
        "--seed", type=ranges.whole(0, 2**63 - 1), default=0, help="another seed gives another split (default: 0)"
    )
    split.add_argument("--task", choices=get_args(AutoTask), default="auto", help=TASK_HELP)
    _add_feedback(commands)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        if arguments.command in FEEDBACK:
            FEEDBACK[arguments.command](arguments)
            return 0
        found = _open(arguments.source, arguments.task)
        outputs = (arguments.out,) if arguments.command == "split" else (arguments.json, arguments.html)
        for file in filter(None, outputs):
            _check_output(file)
        if arguments.command == "split":
            check_can_be_listed(found, arguments.out)
        diagnosis = diagnose(found)
        if arguments.command == "split":
            written = write_split(diagnosis, arguments.out, arguments.val_fraction, arguments.seed)
            console.print(_counted(written))
            if written.faults:
                console.print(f"left out, see `taxon data inspect`: {len(written.faults)}", highlight=False)
            console.print(f"written: {arguments.out}", markup=False, highlight=False, soft_wrap=True)
            return 0
        show(diagnosis, console)
        if arguments.json is not None:
            write_atomically(arguments.json, as_json(diagnosis))
        if arguments.html is not None:
            page = write_page(arguments.source, diagnosis.data, diagnosis.facts, diagnosis.by_kind)
            write_atomically(arguments.html, page)
        return 0 if diagnosis.sound else 1
    except (TrainingError, StoreError, SealError, ValueError) as error:
        sys.stderr.write(f"taxon data: {error}\n")
    except OSError as error:
        sys.stderr.write(f"taxon data: {error.filename or arguments.command}: {error.strerror or error}\n")
    return 2


def _add_feedback(commands: Any) -> None:
    """The parts that read a feedback store."""
    store = argparse.ArgumentParser(add_help=False)
    add_store(store)
    store.add_argument("--model", default="", help="only what was said or captured of this model's answers")
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("--run", type=Path, metavar="FOLDER", help="of `taxon train`, behind the served version")
    suspecting = commands.add_parser(
        "suspects",
        parents=[store, run],
        help="print which labels that people gave are likely to be wrong, the worst first, and remember it for "
        "`taxon feedback review`",
    )
    suspecting.add_argument("--count", type=ranges.whole(0, 10**9), default=SHOWN, help=f"lines (default: {SHOWN})")
    labelling = commands.add_parser(
        "next", parents=[store, run], help="print which captured pictures people should label next"
    )
    labelling.add_argument("--count", type=ranges.whole(1, 10**9), default=SHOWN, help=f"pictures (default: {SHOWN})")
    labelling.add_argument(
        "--by",
        choices=get_args(By),
        default="mixed",
        help="the lowest scores, the least familiar, those least like all that is labelled (k-center), or such among "
        "the lowest scores (default)",
    )
    merging = commands.add_parser(
        "merge", parents=[store], help="write the next version of the data with what was accepted of what people say"
    )
    merging.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the versions")
    merging.add_argument(
        "--base",
        metavar="SOURCE",
        help="folder of a run, or data as for inspect; by default the newest version in --out",
    )
    merging.add_argument("--share", action="store_true", help="only what may be passed on")
    merging.add_argument("--recent-share", type=ranges.number(0.0, 0.9), default=Wanted().recent_share)
    merging.add_argument("--new-class-from", type=ranges.whole(5, 10**9), default=Wanted().new_class_from)


def _suspects(arguments: argparse.Namespace) -> None:
    if arguments.run is None:
        raise TrainingError("suspects are told by what a model has learnt: give its --run")
    with opened(arguments) as store:
        found = suspects(store, cases(store, model=arguments.model), Run.open(arguments.run))
        store.suspect(found.suspicions)
    if not found.suspicions:
        sys.stderr.write("taxon data suspects: no label that people gave waits for a decision\n")
    for one in sorted(found.suspicions, key=lambda one: -one.suspicion)[: arguments.count]:
        _print(one._asdict() | {"confident": one.picture in found.confident})


def _next(arguments: argparse.Namespace) -> None:
    run = arguments.run and Run.open(arguments.run)
    with opened(arguments) as store:
        chosen = list(next_to_label(store, arguments.count, arguments.by, run, arguments.model))
    if not chosen:
        sys.stderr.write(f"taxon data next: {NOTHING_CAPTURED}\n")
    for picture, answer in chosen:
        _print({"picture": picture, **answer._asdict()})


def _merge(arguments: argparse.Namespace) -> None:
    numbers = versions.numbers(arguments.out)
    if arguments.base is None and not numbers:
        raise TrainingError(f"{arguments.out} has no version yet: give --base")
    if arguments.base is None:
        basis = versions.from_version(arguments.out, numbers[-1])
    elif (Path(arguments.base) / "run.json").is_file():
        basis = versions.from_run(Run.open(Path(arguments.base)))
    else:
        defaults = DataOptions()
        basis = versions.from_source(
            arguments.base, defaults.prepared_folder, defaults.val_fraction, defaults.split_seed
        )
    wanted = Wanted(arguments.model, arguments.share, arguments.recent_share, arguments.new_class_from)
    with opened(arguments) as store:
        made = merge(store, arguments.out, basis, wanted)
    if isinstance(made, Unchanged):
        _print({"version": None, "counts": dict(made.counts)})
        return
    kinds = {kind: len(findings) for kind, findings in made.diagnosis.by_kind.items()}
    _print({"version": made.about.version, "folder": str(made.folder), "counts": made.about.counts, "doctor": kinds})


def _print(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")


NOTHING_CAPTURED = (
    "no picture waits: none was captured of which nobody has spoken yet; `taxon serve --feedback-sample`, "
    "--feedback-below-score and --feedback-unfamiliar capture some"
)
FEEDBACK = {"suspects": _suspects, "next": _next, "merge": _merge}


def _check_output(file: Path) -> None:
    if check_writable(file.parent) != file.parent:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file.parent))
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))


def _open(source: str, task: AutoTask) -> Labelled:
    defaults = DataOptions()
    found, values = open_source(
        source,
        digits_folder=defaults.digits_folder,
        prepared_folder=defaults.prepared_folder,
        download=False,
        task=task,
    )
    if values is not None:
        raise TrainingError(f"{source} is a table of numbers: the doctor looks at pictures")
    return found


def show(diagnosis: Diagnosis, console: Console) -> None:
    """The findings for a person."""
    console.print(_counted(diagnosis.data))
    sides = sorted(min(fact.size) for fact in diagnosis.facts)
    if sides:
        forms = ", ".join(f"{form} {count}" for form, count in Counter(f.form for f in diagnosis.facts).most_common())
        console.print(
            f"{len(sides)} pictures ({forms}); shorter side {sides[0]} to {sides[-1]}, median {sides[len(sides) // 2]}"
        )
    for kind, findings in diagnosis.by_kind.items():
        color = COLORS[findings[0].severity]
        console.print(f"[{color}]{findings[0].severity}[/] {kind.replace('_', ' ')}: {len(findings)}")
        for finding in findings[:SHOWN]:
            console.print(f"  {finding.message}", markup=False, highlight=False, soft_wrap=True)
        if len(findings) > SHOWN:
            console.print(f"  and {len(findings) - SHOWN} more")
    if diagnosis.sound:
        console.print("[green]no errors[/]")


def _counted(found: Labelled) -> Table:
    """Pictures of each class, by split."""
    splits = [split for split in (*data.SPLITS, "") if found.split(split)]
    table = Table("class", *(split or "samples" for split in splits), box=None, header_style="bold")
    counts = {split: found.counts(split) for split in splits}
    for label in found.labels:
        table.add_row(escape(label), *(str(counts[split][label]) for split in splits))
    return table


def as_json(diagnosis: Diagnosis) -> str:
    """Everything, for machines."""
    content = {
        "sound": diagnosis.sound,
        "labels": diagnosis.data.labels,
        "counts": {split: diagnosis.data.counts(split) for split in data.SPLITS if diagnosis.data.split(split)}
        or diagnosis.data.counts(),
        "modes": Counter(fact.mode for fact in diagnosis.facts),
        "formats": Counter(fact.form for fact in diagnosis.facts),
        "sizes": Counter(f"{fact.size[0]}x{fact.size[1]}" for fact in diagnosis.facts).most_common(SHOWN),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "message": finding.message,
                "paths": [str(path) for path in finding.paths],
            }
            for finding in diagnosis.findings
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1)
