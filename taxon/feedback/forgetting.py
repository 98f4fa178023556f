"""One contributor leaves: the store, what was exported from it, and which published versions were trained on it."""

import csv
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from taxon.bundle import store as bundles
from taxon.bundle.manifest import BundleError, Manifest
from taxon.feedback import label_studio
from taxon.feedback.exporting import LIST, PROVENANCE, RECENT, write_rows
from taxon.feedback.store import Store

RUN, RUN_SAMPLES = "run.json", "samples.csv"
"""What a run of `taxon train` says of itself, and of each picture: among others its SHA-256."""


@dataclass(slots=True)
class Forgotten:
    """What was done, and what remains to be done by others."""

    rows: int = 0
    """That the contributor had said."""
    pictures: int = 0
    """That are gone; others are spoken of by somebody else too."""
    exports: list[str] = field(default_factory=list)
    """Folders from which copies and rows were removed."""
    missing_exports: list[str] = field(default_factory=list)
    """Folders that are gone, or elsewhere now: their copies must be removed by hand."""
    runs: list[str] = field(default_factory=list)
    """Trainings that have seen one of the pictures."""
    versions: list[str] = field(default_factory=list)
    """Published versions whose provenance names one of those runs, directly or by what they were made from."""
    thumbnails: list[str] = field(default_factory=list)
    """Published versions that hold one of the pictures as a thumbnail: whoever has them can look at it."""


def forget(store: Store, contributor: str, runs: Sequence[Path], models: Path | None) -> Forgotten:
    """Removes everything; said again after it was interrupted, it removes the rest.

    Args:
        store: What is kept.
        contributor: By their own name.
        runs: Folders with runs of `taxon train` and `taxon round` at any depth; none: none are looked at.
        models: Repository; None: it is not looked at.

    Raises:
        StoreError: The store cannot be written.
        OSError: An export or a run cannot be read or written; nothing is done yet if a folder is not there.
    """
    for given in (*runs, *((models,) if models else ())):
        given.stat()  # else what was trained would not be named, and nobody would know
    pseudonym = store.pseudonyms.of(contributor)
    done = Forgotten()
    theirs = {*store.pictures_of(pseudonym)}
    for folder in store.exports():
        if not (folder / PROVENANCE).is_file():
            done.missing_exports.append(str(folder))
        elif seen := _leave_export(folder, pseudonym):
            done.exports.append(str(folder))
            theirs |= seen
    seen_by = dict(found for root in runs for found in _runs_on(root, theirs))
    done.runs = [str(run) for run in seen_by]
    if models:
        published = _published(models)
        done.versions = _versions_of({*seen_by.values()}, published)
        done.thumbnails = [
            version
            for version, manifest in published.items()
            if manifest.thumbnails and theirs & {picture.sha256 for picture in manifest.thumbnails.pictures}
        ]
    # Last: until here the store knows what is to be looked for.
    gone, done.rows = store.forget(pseudonym)
    # Again: who had read the store before may have written meanwhile what it said then.
    for folder in store.exports():
        if (folder / PROVENANCE).is_file() and _leave_export(folder, pseudonym) and str(folder) not in done.exports:
            done.exports.append(str(folder))
    done.pictures = len(gone)
    return done


def _leave_export(folder: Path, pseudonym: str) -> set[str]:
    """Removes a contributor's rows, and the pictures of which nobody else there has said anything. Returns all pictures
    that the contributor spoke of.
    """
    with (folder / PROVENANCE).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    at, path_at, sha_at = (header.index(name) for name in ("contributor", "path", "sha256"))
    left = [row for row in rows if row[at] != pseudonym]
    if len(left) == len(rows):
        return set()
    gone = {row[path_at] for row in rows} - {row[path_at] for row in left}
    for path in gone:
        (folder / path).unlink(missing_ok=True)
        with suppress(OSError):
            (folder / path).parent.rmdir()  # the last of its class
    for name in (LIST, RECENT):
        if (folder / name).is_file():
            with (folder / name).open(newline="", encoding="utf-8") as file:
                list_header, *listed = csv.reader(file)
            write_rows(folder / name, list_header, (row for row in listed if row[0] not in gone))
    theirs = {row[sha_at] for row in rows if row[at] == pseudonym}
    if (folder / label_studio.TASKS).is_file():
        label_studio.leave(folder, {row[sha_at] for row in rows if row[path_at] in gone}, theirs)
    write_rows(folder / PROVENANCE, header, left)
    return theirs


def _runs_on(runs: Path, pictures: Collection[str]) -> Iterable[tuple[Path, str]]:
    """(folder, run id) of the runs below a folder that have seen one of the pictures: `taxon train` leaves them in it,
    `taxon round` a level deeper.
    """
    for file in sorted(runs.rglob(RUN)):
        samples = file.parent / RUN_SAMPLES
        if not samples.is_file():
            continue
        with samples.open(newline="", encoding="utf-8") as opened:
            if any(row.get("sha256") in pictures for row in csv.DictReader(opened)):
                yield file.parent, str(json.loads(file.read_text()).get("run_id", ""))


def _published(models: Path) -> dict[str, Manifest]:
    """By `name/version`, but for those that cannot be read."""
    found = {}
    for name in bundles.names(models):
        for version in bundles.versions(models, name):
            with suppress(BundleError, OSError):
                found[f"{name}/{version}"] = bundles.read(models, name, version).manifest
    return found


def _versions_of(run_ids: Collection[str], published: Mapping[str, Manifest]) -> list[str]:
    """`name/version` of what was made from these runs, by however many steps."""
    origins_of = {
        version: (manifest.provenance.run_id, {manifest.provenance.run_id, *manifest.provenance.parents})
        for version, manifest in published.items()
    }
    found: set[str] = {*run_ids}
    while more := {version for version, (_, origins) in origins_of.items() if origins & found} - found:
        found |= more | {origins_of[version][0] for version in more}  # training goes on from runs as well as versions
    return sorted(found & origins_of.keys())
