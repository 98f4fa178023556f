"""What was decided of what people say → the next version of the data, looked at by the data doctor.

Pictures that the doctor would refuse are left out and counted: files that cannot be read, pictures that the data has
already, and those that are among the pictures to judge by, or look like one.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from taxon.bundle import atomic_files, folder_lock
from taxon.feedback.exporting import LIST, PROVENANCE, PROVENANCE_COLUMNS, RECENT, provenance_row, write_rows
from taxon.feedback.review import Case, cases
from taxon.feedback.store import Store
from taxon.training.dataset import data, tables
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.doctor import Diagnosis, diagnose
from taxon.training.dataset.findings import Finding
from taxon.training.errors import TrainingError
from taxon.training.rounds import versions
from taxon.training.rounds.versions import BASE, LIST_COLUMNS, SAID, About, Basis, Row

COLUMNS = (*PROVENANCE_COLUMNS, "decision", "reviewer", "why", "decided_at")
REFUSED = {
    "unreadable": "unreadable",
    "exact_duplicate": "in the data already",
    "exact_duplicate_across_labels": "in the data under another label",
    "exact_duplicate_across_splits": "among the pictures to judge by",
}
"""Findings for which a new picture is left out."""
NEAR = ("near_duplicate_across_splits", "near_duplicate_across_labels")
NEAR_REASON = "like one of the pictures to judge by"
"""Why one is left out that looks like one of those."""
USUALLY_ALIKE = 0.1
"""Where more of the pictures to judge by look like one to train on already, as tiny ones do, likeness tells nothing."""
JUDGED = ("val", "test")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is merged."""

    model: str = ""
    """Only what was said of this model's answers; empty: of any."""
    share: bool = False
    """Only what may be passed on to others."""
    recent_share: float = 0.2
    """Of the new pictures, so many are kept back to judge by until the next version."""
    new_class_from: int = 20
    """A label that the data does not have becomes a class with so many pictures."""
    judged_share: float = 0.2
    """Of the pictures of a new class, so many validate, and so many test if there is a test split."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A new version."""

    folder: Path
    about: About
    diagnosis: Diagnosis
    """Of all that was looked at, with what was left out."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """There is nothing new to learn from."""

    counts: Mapping[str, int]
    """What became of what people say."""


def merge(store: Store, root: Path, basis: Basis, wanted: Wanted = Wanted(), made_for: str = "") -> Merged | Unchanged:
    """Writes the next version below a folder, unless nothing has changed since what it is made from.

    Args:
        store: What people say, and what was decided of it. It remembers the folder, so that `forget` finds it.
        root: Of the versions.
        basis: What it is made from.
        wanted: What is merged.
        made_for: The round that wants it.

    Raises:
        TrainingError: What would come of it cannot be trained on, or somebody left meanwhile; then nothing is written.
        StoreError, SealError: The store cannot be used.
        OSError: The folder cannot be written.
    """
    atomic_files.make_folder(root)
    with folder_lock.held(root):
        versions.remove_unfinished(root, store)
        chosen, counts = _chosen(store, basis, wanted)
        kept = _kept(basis, chosen, counts)
        there = {row.picture for row in kept}
        new = [
            Row(f"{SAID}/{picture}.{case.extension}", _label(case), "train")
            for picture, case in chosen.items()
            if case and picture not in there
        ]
        if not new and kept == list(basis.rows):
            return Unchanged(dict(+counts))
        number = versions.next_number(root)
        folder = root / str(number)
        store.exported_to(folder.resolve())  # first: what is not finished must be found too
        folder.mkdir(mode=0o700)
        (folder / SAID).mkdir()
        write_rows(folder / PROVENANCE, COLUMNS, _provenance([*kept, *new], chosen, basis))
        (folder / BASE).symlink_to(basis.root)
        _write_pictures(folder, [*kept, *new], chosen, store, basis)

        diagnosis = diagnose(_labelled(folder, [*kept, *new]))
        judging = {folder / row.path for row in kept if row.split in JUDGED}
        left_out = _refused(diagnosis.findings, {folder / row.path for row in new}, judging, counts)
        for path, why in left_out.items():
            counts[f"left out: {why}"] += 1
            path.unlink(missing_ok=True)
        new = [row for row in new if folder / row.path not in left_out]
        counts["merged"] = len(new)
        if not new and kept == list(basis.rows):
            versions.remove(folder, store)
            return Unchanged(dict(+counts))
        placed = [_placed(row, basis, wanted) for row in new]
        recent = [row for row in placed if not row.split]
        rows = [*kept, *(row for row in placed if row.split)]
        counts["kept back to judge by"] = len(recent)
        write_rows(folder / LIST, LIST_COLUMNS, ([row.path, row.label, row.split, row.group] for row in rows))
        write_rows(folder / RECENT, ("path", "label"), ([row.path, row.label] for row in recent))
        provenance = [*_provenance([*rows, *recent], chosen, basis)]
        write_rows(folder / PROVENANCE, COLUMNS, provenance)
        if _spoken(provenance) - _still_spoken(store, basis):  # after the last list: `forget` looks once more then
            versions.remove(folder, store)
            raise TrainingError("somebody has left while the version was being written: merge again")
        found = tables.manifest(tables.read_table(folder / LIST))
        data.check_covered(found)
        digests = {fact.sample.path.resolve(): fact.sample.sha256 for fact in diagnosis.facts}
        samples = [replace(sample, sha256=digests.get(sample.path.resolve(), "")) for sample in found.samples]
        atomic_files.write(folder / versions.DOCTOR, _findings(diagnosis.findings, folder))
        about = About(
            number,
            datetime.now(UTC).isoformat(timespec="seconds"),
            str(basis.root),
            basis.parent,
            made_for,
            found.labels,
            tuple(sorted({*found.labels} - {*basis.labels})),
            data.digest(samples, found.labels),
            dict(+counts),
        )
        for path in (folder / SAID).iterdir():
            atomic_files.sync(path)
        atomic_files.sync(folder / SAID)
        versions.write_about(folder, about)
        return Merged(folder, about, diagnosis)


def _chosen(store: Store, basis: Basis, wanted: Wanted) -> tuple[dict[str, Case | None], Counter[str]]:
    """Every picture of the store, with None for those that are not to be learnt from; and what became of those."""
    counts: Counter[str] = Counter()
    chosen: dict[str, Case | None] = {}
    for case in cases(store, pending=False, model=wanted.model):
        why = _why_not(case, wanted)
        counts[why] += bool(why)
        chosen[case.picture] = None if why else case
    known = {name for label in basis.labels for name in label.split(tables.SEPARATOR)}
    sizes = Counter(label for case in chosen.values() if case for label in _labels(case))
    small = {label for label, count in sizes.items() if label not in known and count < wanted.new_class_from}
    for picture, told in [*chosen.items()]:
        if told and small & {*_labels(told)}:
            chosen[picture] = None
            counts["of too small a new class"] += 1
    return chosen, +counts


def _why_not(case: Case, wanted: Wanted) -> str:
    if case.is_pending or case.decision is None:
        return "pending"
    if case.decision.verdict == "reject":
        return "rejected"
    if not case.decision.labels:
        return "none of the classes"
    if wanted.share and not all(voice.consent == "share" for voice in case.voices):
        return "may not be passed on"
    return ""


def _kept(basis: Basis, chosen: Mapping[str, Case | None], counts: Counter[str]) -> list[Row]:
    """The rows of the basis with what was decided since. What has gone from the store by age stays; who leaves has left
    the basis too.
    """
    kept = []
    for row in basis.rows:
        if row.picture not in chosen:
            kept.append(row)
        elif (case := chosen[row.picture]) is None:
            counts["withdrawn"] += 1
        else:
            counts["relabelled"] += _label(case) != row.label
            kept.append(replace(row, label=_label(case)))
    return kept


def _labels(case: Case) -> tuple[str, ...]:
    return () if case.decision is None else case.decision.labels


def _label(case: Case) -> str:
    return tables.SEPARATOR.join(_labels(case))


def _placed(row: Row, basis: Basis, wanted: Wanted) -> Row:
    """A new picture in its split, by its digest: always the same. No split: kept back to judge by."""
    drawn = int(row.picture[:8], 16) / 2**32
    if {*row.label.split(tables.SEPARATOR)} <= {*basis.labels}:
        return replace(row, split="" if drawn < wanted.recent_share else "train")
    if drawn < wanted.judged_share:
        return replace(row, split="val")
    has_test = any(other.split == "test" for other in basis.rows)
    return replace(row, split="test" if has_test and drawn < 2 * wanted.judged_share else "train")


def _write_pictures(
    folder: Path, rows: Sequence[Row], chosen: Mapping[str, Case | None], store: Store, basis: Basis
) -> None:
    """Those of the store as they are there; those of the parent as links, which need no room."""
    for row in rows:
        if not row.picture:
            continue
        if basis.folder is not None and (basis.folder / row.path).exists():
            try:
                os.link(basis.folder / row.path, folder / row.path)
            except OSError:
                shutil.copyfile(basis.folder / row.path, folder / row.path)
        elif (case := chosen.get(row.picture)) is not None:
            (folder / row.path).write_bytes(store.pictures.read(case.picture, case.extension))
            (folder / row.path).chmod(0o600)


def _labelled(folder: Path, rows: Sequence[Row]) -> Labelled:
    """As the doctor takes them: files that cannot be read are its to name."""
    names = [row.label.split(tables.SEPARATOR) if row.label else [] for row in rows]
    labels = tuple(sorted({name for listed in names for name in listed}))
    index = {name: number for number, name in enumerate(labels)}
    single = all(len(listed) == 1 for listed in names)
    samples = tuple(
        Sample(
            folder / row.path,
            label=index[listed[0]] if single else -1,
            labels=() if single else tuple(sorted(index[name] for name in listed)),
            split=row.split,
            group=row.group,
        )
        for row, listed in zip(rows, names, strict=True)
    )
    return Labelled(folder, labels, samples, "single_label" if single else "multi_label")


def _refused(findings: Sequence[Finding], new: set[Path], judging: set[Path], counts: Counter[str]) -> dict[Path, str]:
    """New pictures that are left out, and why."""
    usual = {
        path for finding in findings if finding.kind in NEAR and not new & {*finding.paths} for path in finding.paths
    }
    tells = len(usual & judging) <= USUALLY_ALIKE * len(judging)
    refused: dict[Path, str] = {}
    alike: set[Path] = set()
    for finding in findings:
        mine = new & {*finding.paths}
        if why := REFUSED.get(finding.kind):
            refused |= dict.fromkeys(mine, why)
        elif finding.kind in NEAR and judging & {*finding.paths}:
            alike |= mine
    if tells:
        return dict.fromkeys(alike, NEAR_REASON) | refused
    counts["kept although like one to judge by"] = len(alike - refused.keys())
    return refused


def _provenance(rows: Iterable[Row], chosen: Mapping[str, Case | None], basis: Basis) -> Iterable[Sequence[str]]:
    """For each picture that people have spoken of a row for each of them."""
    before: dict[str, list[tuple[str, ...]]] = {}
    for told in basis.provenance:
        before.setdefault(told[0], []).append(told)
    for row in rows:
        case = chosen.get(row.picture)
        if case is None or case.decision is None:
            yield from before.get(row.path, ())
            continue
        decision = case.decision
        decided_at = datetime.fromtimestamp(decision.decided_at, UTC).isoformat(timespec="seconds")
        for voice in case.voices:
            decided = decision.verdict, decision.reviewer, decision.why, decided_at
            yield [*provenance_row(row.path, row.label, voice), *decided]


def _spoken(provenance: Iterable[Sequence[str]]) -> set[tuple[str, str]]:
    """(contributor, picture) of its rows."""
    contributor_at, picture_at = COLUMNS.index("contributor"), COLUMNS.index("sha256")
    return {(row[contributor_at], row[picture_at]) for row in provenance}


def _still_spoken(store: Store, basis: Basis) -> set[tuple[str, str]]:
    """The same of all that may be learnt from by now: who leaves has left the store and the basis."""
    folder = basis.folder
    earlier = () if folder is None else versions.from_version(folder.parent, int(folder.name)).provenance
    return _spoken(earlier) | {(kept.contributor, kept.picture) for kept in store.said()}


def _findings(findings: Sequence[Finding], folder: Path) -> str:
    told = [
        {
            "kind": finding.kind,
            "severity": finding.severity,
            "message": finding.message,
            "paths": [os.path.relpath(path, folder) for path in finding.paths],
        }
        for finding in findings
    ]
    return json.dumps(told, ensure_ascii=False, indent=1)
