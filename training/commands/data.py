"""The data doctor: `taxon data inspect` says what is wrong with labelled pictures, `taxon data split` writes a
split in which no picture, and nothing that looks like it, is on both sides.
"""

import argparse
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon.bundle.atomic_files import write as write_atomically
from taxon.training.config import DataOptions
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.findings import Finding, examine
from taxon.training.dataset.fingerprints import Fingerprints, alike, fingerprints
from taxon.training.dataset.inspect_page import write_page
from taxon.training.dataset.scan_pictures import Facts, look_at_all
from taxon.training.dataset.sources import open_source
from taxon.training.dataset.tables import SEPARATOR
from taxon.training.errors import TrainingError

SHOWN = 20
"""Findings of one kind on the terminal; JSON has all."""
COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found."""

    data: Labelled
    facts: list[Facts]
    fingerprints: Fingerprints
    """Of the same pictures."""
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity != "error" for finding in self.findings)


def main(argv: list[str]) -> int:
    """`taxon data`: 0 sound, 1 errors found, 2 not usable as called."""
    parser = argparse.ArgumentParser(description="Check and split labelled pictures.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="say what is wrong; exit code 1 if there are errors")
    inspect.add_argument("source", help=str(DataOptions.model_fields["source"].description))
    inspect.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    inspect.add_argument("--html", type=Path, metavar="FILE", help="write a page with thumbnails")
    split = commands.add_parser("split", help="write a CSV list with a train/val split without duplicates across it")
    split.add_argument("source", help="as for inspect")
    split.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="in or above the pictures' folder")
    split.add_argument("--val-fraction", type=float, default=0.2, help="share of each class (default: 0.2)")
    split.add_argument("--seed", type=int, default=0, help="another seed gives another split (default: 0)")
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        diagnosis = diagnose(_open(arguments.source))
        if arguments.command == "split":
            if not 0.0 < arguments.val_fraction < 1.0:
                raise TrainingError(f"--val-fraction {arguments.val_fraction} must lie between 0 and 1")
            write_split(diagnosis, arguments.out, arguments.val_fraction, arguments.seed)
            console.print(f"written: {arguments.out}", markup=False)
            return 0
        show(diagnosis, console)
        if arguments.json is not None:
            write_atomically(arguments.json, as_json(diagnosis))
        if arguments.html is not None:
            page = write_page(arguments.source, diagnosis.data, diagnosis.facts, _by_kind(diagnosis))
            write_atomically(arguments.html, page)
        return 0 if diagnosis.sound else 1
    except TrainingError as error:
        sys.stderr.write(f"taxon data: {error}\n")
    except OSError as error:
        sys.stderr.write(f"taxon data: {error.filename} cannot be written: {error.strerror}\n")
    return 2


def _open(source: str) -> Labelled:
    defaults = DataOptions()
    found, values = open_source(
        source,
        digits_folder=defaults.digits_folder,
        prepared_folder=defaults.prepared_folder,
        download=False,
        task="auto",
    )
    if values is not None:
        raise TrainingError(f"{source} is a table of numbers: the doctor looks at pictures")
    return found


def diagnose(found: Labelled) -> Diagnosis:
    """Looks at every file."""
    facts, grids, faults = look_at_all(found.samples)
    usable = replace(found, samples=tuple(fact.sample for fact in facts), faults=(*found.faults, *faults))
    prints = fingerprints(grids)
    return Diagnosis(usable, facts, prints, examine(usable, facts, prints))


def show(diagnosis: Diagnosis, console: Console) -> None:
    """The findings for a person."""
    found = diagnosis.data
    splits = [split for split in (*data.SPLITS, "") if found.split(split)]
    table = Table("class", *(split or "samples" for split in splits), box=None, header_style="bold")
    counts = {split: found.counts(split) for split in splits}
    for label in found.labels:
        table.add_row(escape(label), *(str(counts[split][label]) for split in splits))
    console.print(table)
    sides = sorted(min(fact.size) for fact in diagnosis.facts)
    if sides:
        forms = ", ".join(f"{form} {count}" for form, count in Counter(f.form for f in diagnosis.facts).most_common())
        console.print(
            f"{len(sides)} pictures ({forms}); shorter side {sides[0]} to {sides[-1]}, median {sides[len(sides) // 2]}"
        )
    for kind, findings in _by_kind(diagnosis).items():
        color = COLORS[findings[0].severity]
        console.print(f"[{color}]{findings[0].severity}[/] {kind.replace('_', ' ')}: {len(findings)}")
        for finding in findings[:SHOWN]:
            console.print(f"  {finding.message}", markup=False, highlight=False, soft_wrap=True)
        if len(findings) > SHOWN:
            console.print(f"  and {len(findings) - SHOWN} more")
    if diagnosis.sound:
        console.print("[green]no errors[/]")


def _by_kind(diagnosis: Diagnosis) -> dict[str, list[Finding]]:
    kinds: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return kinds


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


def write_split(diagnosis: Diagnosis, file: Path, fraction: float, seed: int) -> None:
    """Writes `path,label,split,group`: pictures that are equal or look alike form a group and stay together.

    Raises:
        TrainingError: A picture lies outside the file's folder, or a class cannot be split.
        OSError: Not writable.
    """
    grouped = replace(diagnosis.data, samples=tuple(grouped_samples(diagnosis.facts, diagnosis.fingerprints)))
    split = data.with_splits(
        replace(grouped, samples=tuple(replace(s, split="") for s in grouped.samples)), fraction, seed
    )
    root = file.parent.resolve()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group"])
    for sample in split.samples:
        path = sample.path.resolve()
        if not path.is_relative_to(root):
            raise TrainingError(f"{path} lies outside {root}: write the list in or above the pictures' folder")
        names = [split.labels[index] for index in sample.labels or (sample.label,) if index >= 0]
        writer.writerow([path.relative_to(root).as_posix(), SEPARATOR.join(names), sample.split, sample.group])
    write_atomically(file, text.getvalue())


def grouped_samples(facts: Sequence[Facts], prints: Fingerprints) -> list[Sample]:
    """The samples, each with the group of all that it equals or looks like, also by way of others."""
    leader = list(range(len(facts)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    first_of: dict[str, int] = {}
    pairs = [(first_of.setdefault(fact.sample.group or fact.sample.sha256, n), n) for n, fact in enumerate(facts)]
    same = {}
    pairs += [(same.setdefault(fact.sample.sha256, n), n) for n, fact in enumerate(facts)]
    pairs += [(first, second) for first, second, _ in alike(prints)]
    for first, second in pairs:
        leader[find(second)] = find(first)
    return [replace(fact.sample, group=facts[find(n)].sample.sha256[:16]) for n, fact in enumerate(facts)]
