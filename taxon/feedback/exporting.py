"""What was decided, or else what people agree on → a labelled folder and a list that `taxon train --data` reads, and
where each is from.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from taxon import csv_rows
from taxon.bundle import atomic_files
from taxon.feedback.records import Kept
from taxon.feedback.review import Case
from taxon.feedback.store import Store
from taxon.labelled_folder import may_be_class

LIST, PROVENANCE = "samples.csv", "provenance.csv"
RECENT = "recent.csv"
"""A list of what is kept back to judge by, in versions of merged data."""
LIST_COLUMNS = ("path", "label")
PROVENANCE_COLUMNS = (
    "path",
    "label",
    "sha256",
    "contributor",
    "consent",
    "license",
    "said_at",
    "request_id",
    "model",
    "version",
    "variant",
    "answered",
    "score",
    "unknown",
    "familiarity",
    "note",
)
SEPARATOR = "|"
"""Between the labels of one picture."""
ONLY_LISTED = ".only-listed"
"""Holds pictures whose labels are no names of folders, or several: readers of folders pass it over."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported."""

    share: bool = False
    """Only what may be passed on to others."""
    proposals: bool = False
    """Also labels that the model did not have."""
    none_label: str = ""
    """The label of pictures that are none of the model's classes; empty: they are left out."""
    model: str = ""
    """Only answers of this one; empty: of any."""


def export(store: Store, folder: Path, wanted: Wanted) -> Counter[str]:
    """Writes pictures and lists; the store remembers where, so that `forget` finds them.

    Returns:
        How many pictures, by what became of them: exported, rejected (by a reviewer), contradictory (people do not
        agree, or say something else since it was decided), proposal, none (of the classes), other (model or consent).

    Raises:
        StoreError: The folder cannot be remembered.
        OSError: It is not empty, or cannot be written.
        SealError: The pictures do not open.
    """
    atomic_files.make_folder(folder)
    if next(folder.iterdir(), None) is not None:
        raise FileExistsError(17, "it is not empty", str(folder))
    store.exported_to(folder.resolve())  # first: what is not finished must be found too
    counts: Counter[str] = Counter()
    chosen: list[tuple[str, str, list[Kept]]] = []
    for case in _cases(store):
        voices = [
            kept
            for kept in case.voices
            if (kept.consent == "share" or not wanted.share) and wanted.model in ("", kept.model)
        ]
        label, why = _label(case, voices, wanted)
        counts[why] += 1
        if why == "exported":
            chosen.append((_path(voices[0], label), label, voices))
    for path, _, (first, *_) in chosen:
        file = folder / path
        atomic_files.make_folder(file.parent)
        atomic_files.write(file, store.pictures.read(first.picture, first.extension), mode=0o600)
    write_rows(folder / LIST, LIST_COLUMNS, ([path, label] for path, label, _ in chosen))
    rows = (provenance_row(path, label, kept) for path, label, picture in chosen for kept in picture)
    write_rows(folder / PROVENANCE, PROVENANCE_COLUMNS, rows)
    return counts


def write_rows(file: Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Replaces a CSV file.

    Raises:
        OSError: It cannot be written.
    """
    atomic_files.write(file, csv_rows.as_text(columns, rows), mode=0o600)


def _cases(store: Store) -> list[Case]:
    """In the order in which the pictures were first spoken of."""
    pictures: dict[str, list[Kept]] = {}
    for kept in store.said():
        pictures.setdefault(kept.picture, []).append(kept)
    decided = store.decisions()
    return [Case(picture, said[0].extension, tuple(said), decided.get(picture)) for picture, said in pictures.items()]


def _label(case: Case, voices: list[Kept], wanted: Wanted) -> tuple[str, str]:
    """The label as lists write it, and what becomes of the picture: what was decided counts, and where nothing was,
    what these voices agree on.
    """
    if not voices:
        return "", "other"
    decision = case.decision
    if decision and decision.verdict == "reject":
        return "", "rejected"
    if len({frozenset(kept.labels) for kept in voices}) > 1 if decision is None else case.is_pending:
        return "", "contradictory"
    labels = sorted(voices[0].labels if decision is None else decision.labels)
    if not labels:
        return (wanted.none_label, "exported") if wanted.none_label else ("", "none")
    if not wanted.proposals and any({*labels} & {*kept.proposed} for kept in voices):
        return "", "proposal"
    return SEPARATOR.join(labels), "exported"


def _path(kept: Kept, label: str) -> str:
    name = f"{kept.picture}.{kept.extension}"
    is_folder = may_be_class(label) and SEPARATOR not in label and "\\" not in label and len(label.encode()) <= 255
    return f"{label if is_folder else ONLY_LISTED}/{name}"


def provenance_row(path: str, label: str, kept: Kept) -> list[str]:
    """Where one row is from, in the order of `PROVENANCE_COLUMNS`."""
    said_at = datetime.fromtimestamp(kept.said_at, UTC).isoformat(timespec="seconds")
    return [
        path,
        label,
        kept.picture,
        kept.contributor,
        kept.consent,
        kept.license,
        said_at,
        kept.request_id,
        kept.model,
        str(kept.version),
        kept.variant,
        SEPARATOR.join(kept.answered),
        "" if kept.score is None else str(kept.score),
        str(kept.unknown).lower(),
        "" if kept.familiarity is None else str(kept.familiarity),
        kept.note,
    ]
