"""Answered pictures and what people say of them, in one folder that any number of processes may write at once.

A picture's file is on the disk before its row is, and its row before anybody is told: what was acknowledged is there
whenever the machine stops, and whoever is killed leaves at most a file that no row speaks of. Rows go before their
files for the same reason.
"""

import errno
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taxon.bundle import atomic_files, folder_lock
from taxon.feedback import decisions, index
from taxon.feedback.decisions import Decision, Suspicion
from taxon.feedback.errors import StoreError, StoreFullError, TooMuchSaidError
from taxon.feedback.picture_room import PictureRoom, name_of
from taxon.feedback.pseudonyms import Pseudonyms
from taxon.feedback.records import Answer, Entry, Kept, Said
from taxon.feedback.sealing import Seal, SealError
from taxon.feedback.stripped import Stripped, stripped
from taxon.feedback.unstrippable import UnstrippableError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HOUR_S = 3600.0
ROOM_SHARE = 0.01
"""Of all room, so much is made at once: looking for what may go takes a while."""
Added = Literal["kept", "said", "known"]
"""The picture is kept; it was, and what was said of it is; nothing new."""
AddedOrNot = Added | UnstrippableError | StoreFullError | TooMuchSaidError | None
"""None: there is no such answer, so nothing can be said of it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept, and how long."""

    max_bytes: int = 10 * 2**30
    """Of all pictures. Those of which nobody has said anything make room for others, the oldest first."""
    max_age_s: float = 90 * 86400.0
    """Of a picture, since it was kept or something was last said of it."""
    max_said_per_hour: int = 1000
    """By one contributor."""


class Store:
    """One folder, seen from one thread."""

    def __init__(
        self, folder: Path, bounds: Bounds = Bounds(), seal: Seal | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Opens it, and makes it if there is none.

        Args:
            folder: Of the store.
            bounds: Of what is kept.
            seal: Encrypts pictures and notes.
            clock: Seconds since 1970.

        Raises:
            StoreError: It cannot be used.
        """
        self._bounds = bounds
        self._seal = seal
        self._clock = clock
        self.folder = folder
        try:
            if not folder.exists():
                atomic_files.make_folder(folder)
                folder.chmod(0o700)
            with folder_lock.held(folder), _told(folder):  # SQLite waits for nobody when it changes its journal
                self.pseudonyms = Pseudonyms(folder)
                self._index = index.connect(folder)
        except (index.IndexFileError, ValueError) as error:
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(f"{error.filename or folder} cannot be used: {error.strerror}") from error
        self.pictures = PictureRoom(folder, seal)

    def close(self) -> None:
        """Lets go of the folder."""
        self._index.close()

    def add(self, entries: Sequence[Entry]) -> list[AddedOrNot]:
        """Keeps several at once; returns once the disk holds them.

        Returns:
            What became of each.

        Raises:
            StoreFullError: The disk is full. Nothing of this call was kept.
            StoreError: The disk fails, or others are at work for too long. Likewise.
        """
        ready = [_stripped(entry) for entry in entries]
        written: list[str] = []
        evicted: list[str] = []
        results: list[AddedOrNot] = []
        with _told(self.folder):
            try:
                with index.writing(self._index):
                    for entry, picture in zip(entries, ready, strict=True):
                        if isinstance(picture, UnstrippableError):
                            results.append(picture)
                        else:
                            results.append(self._add(entry, picture, written, evicted))
            except BaseException:
                with suppress(OSError, sqlite3.Error):  # else a later sweep does
                    self._remove_files(written)
                raise
            self._remove_files(evicted)
        return results

    def answer(self, request_id: str) -> Answer | None:
        """What a model answered, if its picture is kept."""
        row = self._index.execute(
            "SELECT request_id, model, version, variant, labels, score, unknown, familiarity FROM answers "
            "WHERE request_id = ?",
            (request_id,),
        ).fetchone()
        if row is None:
            return None
        answer = Answer(*row)
        return answer._replace(labels=tuple(json.loads(row[4])), unknown=bool(answer.unknown))

    def said(self) -> Iterator[Kept]:
        """All that people have said, in order of time."""
        rows = self._index.execute(
            "SELECT s.picture, p.extension, s.contributor, s.labels, s.proposed, s.consent, s.license, s.note,"
            " s.said_at, a.request_id, a.model, a.version, a.variant, a.labels, a.score, a.unknown, a.familiarity"
            " FROM said s JOIN pictures p ON p.id = s.picture JOIN answers a ON a.request_id = s.request_id"
            " ORDER BY s.said_at, s.picture, s.contributor"
        )
        for row in rows:
            kept = Kept(*row)
            yield kept._replace(
                labels=tuple(json.loads(row[3])),
                proposed=tuple(json.loads(row[4])),
                note=self._opened(kept.note),
                answered=tuple(json.loads(row[13])),
                unknown=bool(kept.unknown),
            )

    def unsaid(self) -> Iterator[tuple[str, str, Answer]]:
        """(picture, extension, answer) of what was captured and nobody has spoken of, the oldest first."""
        rows = self._index.execute(
            "SELECT p.id, p.extension, a.request_id, a.model, a.version, a.variant, a.labels, a.score, a.unknown,"
            " a.familiarity FROM pictures p JOIN answers a ON a.picture = p.id"
            " WHERE NOT EXISTS (SELECT 1 FROM said WHERE said.picture = p.id) ORDER BY a.answered_at, p.id"
        )
        for picture, extension, *found in rows:
            answer = Answer(*found)
            yield picture, extension, answer._replace(labels=tuple(json.loads(found[4])), unknown=bool(answer.unknown))

    def decide(self, decided: Sequence[Decision]) -> None:
        """Records what was decided, all or nothing; see `review` for what may be.

        Raises:
            StoreError: As for `add`.
        """
        with _told(self.folder), index.writing(self._index):
            decisions.add(self._index, decided, self._clock())

    def undo(self, pictures: Sequence[str], decided_by: str, reviewer: str) -> list[Decision]:
        """Takes decisions back, see `decisions.undo`. Returns them.

        Raises:
            StoreError: As for `add`.
        """
        with _told(self.folder), index.writing(self._index):
            return decisions.undo(self._index, pictures, decided_by, reviewer, self._clock())

    def decisions(self) -> dict[str, Decision]:
        """Those in force, by picture."""
        return decisions.in_force(self._index)

    def suspect(self, suspicions: Sequence[Suspicion]) -> None:
        """Remembers how likely labels are to be wrong.

        Raises:
            StoreError: As for `add`.
        """
        with _told(self.folder), index.writing(self._index):
            decisions.suspect(self._index, suspicions, self._clock())

    def suspicions(self) -> dict[str, Suspicion]:
        """What is remembered, by picture."""
        return decisions.suspicions(self._index)

    def figures(self) -> dict[str, int]:
        """How much there is, by name."""
        counts = {
            "pictures": "SELECT count(*) FROM pictures",
            "bytes": "SELECT byte_count FROM total",
            "said": "SELECT count(*) FROM said",
            "contributors": "SELECT count(DISTINCT contributor) FROM said",
        }
        return {name: int(self._index.execute(query).fetchone()[0]) for name, query in counts.items()}

    def prune(self) -> int:
        """Removes what is too old, and what writers that were killed have left behind. Returns how many pictures.

        Raises:
            StoreError: As for `add`.
        """
        now = self._clock()
        with _told(self.folder):
            with index.writing(self._index):
                oldest = now - self._bounds.max_age_s
                found = self._index.execute("SELECT id FROM pictures WHERE kept_at < ?", (oldest,))
                gone = [picture for (picture,) in found]
                self._drop(gone)
                self._index.execute("DELETE FROM tallies WHERE hour < ?", (int(now // HOUR_S),))
            self.sweep()
        return len(gone)

    def forget(self, contributor: str) -> tuple[list[str], int]:
        """Removes what a contributor has said, and the pictures of which nobody else has said anything.

        Args:
            contributor: Pseudonym.

        Returns:
            The pictures that are gone, and how many rows.

        Raises:
            StoreError: As for `add`.
        """
        with _told(self.folder):
            with index.writing(self._index):
                pictures = self.pictures_of(contributor)
                self._index.execute("DELETE FROM said WHERE contributor = ?", (contributor,))
                self._index.execute("DELETE FROM tallies WHERE contributor = ?", (contributor,))
                others = "SELECT 1 FROM said WHERE picture = ?"
                gone = [picture for picture in pictures if not self._index.execute(others, (picture,)).fetchone()]
                self._drop(gone)
                decisions.withdraw(self._index, {*pictures} - {*gone})
            self.sweep()
        return gone, len(pictures)

    def pictures_of(self, contributor: str) -> list[str]:
        """Those of which a contributor, by pseudonym, has said something."""
        found = self._index.execute("SELECT picture FROM said WHERE contributor = ?", (contributor,))
        return [picture for (picture,) in found]

    def sweep(self) -> None:
        """Removes files that no row speaks of, and what was deleted from the log of the index."""
        with index.writing(self._index):
            self.pictures.sweep(self._is_kept)
        self._index.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def exported_to(self, folder: Path) -> None:
        """Remembers that there are copies, for `forget`."""
        with _told(self.folder), index.writing(self._index):
            self._index.execute("INSERT OR REPLACE INTO exports VALUES (?, ?)", (str(folder), self._clock()))

    def exports(self) -> list[Path]:
        """Where copies were written to."""
        return [Path(folder) for (folder,) in self._index.execute("SELECT folder FROM exports ORDER BY exported_at")]

    def _add(self, entry: Entry, picture: Stripped | None, written: list[str], evicted: list[str]) -> AddedOrNot:
        now, said = self._clock(), entry.said
        if said is not None and (refusal := self._tally(self.pseudonyms.of(said.contributor), now)):
            return refusal
        if picture is None:
            row = self._index.execute(
                "SELECT picture FROM answers WHERE request_id = ?", (entry.answer.request_id,)
            ).fetchone()
            if row is None or said is None:
                return None
            self._say(row[0], entry.answer.request_id, said, now)
            return "said"
        name = name_of(picture.content)
        is_new = not self._is_kept(name)
        if not is_new and said is None:
            return "known"
        if is_new:
            if not self._has_room(len(picture.content), evicted):
                return StoreFullError(f"the store holds {self._bounds.max_bytes} bytes of pictures, as much as it may")
            written.append(name)
            self.pictures.put(name, picture.extension, picture.content)
            row = name, picture.extension, len(picture.content), now
            self._index.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", row)
        request_id, *answered, labels, score, unknown, familiarity = entry.answer
        self._index.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (request_id, name, entry.why, *answered, _listed(labels), score, unknown, familiarity, now),
        )
        if said is not None:
            self._say(name, request_id, said, now)
        return "kept" if is_new else "said"

    def _say(self, picture: str, request_id: str, said: Said, now: float) -> None:
        """The last word of a contributor on a picture counts."""
        note = said.note if self._seal is None or not said.note else self._seal.closed(said.note.encode(), "note").hex()
        who, labels, proposed = self.pseudonyms.of(said.contributor), _listed(said.labels), _listed(said.proposed)
        self._index.execute(
            "INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (who, picture, request_id, labels, proposed, said.consent, said.license, note, now),
        )
        self._index.execute("UPDATE pictures SET kept_at = ? WHERE id = ?", (now, picture))
        self._index.execute(  # answers that only what was said before referred to
            "DELETE FROM answers WHERE picture = ? AND why = 'feedback'"
            " AND request_id NOT IN (SELECT request_id FROM said WHERE picture = ?)",
            (picture, picture),
        )

    def _opened(self, note: str) -> str:
        if self._seal is None or not note:
            return note
        try:
            return self._seal.opened(bytes.fromhex(note), "note").decode()
        except (ValueError, SealError):
            return note  # of a time before there was a key

    def _tally(self, contributor: str, now: float) -> TooMuchSaidError | None:
        hour = int(now // HOUR_S)
        self._index.execute(
            "INSERT INTO tallies VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (contributor, hour)
        )
        found = "SELECT count FROM tallies WHERE contributor = ? AND hour = ?"
        (count,) = self._index.execute(found, (contributor, hour)).fetchone()
        most = self._bounds.max_said_per_hour
        return TooMuchSaidError(most, (hour + 1) * HOUR_S - now) if count > most else None

    def _has_room(self, byte_count: int, evicted: list[str]) -> bool:
        """Whether there is room, once the oldest pictures have gone of which nobody has said anything."""
        most = self._bounds.max_bytes
        (total,) = self._index.execute("SELECT byte_count FROM total").fetchone()
        if total + byte_count <= most:
            return True
        missing = total + byte_count - most
        wanted, going = max(missing, int(ROOM_SHARE * most)), []
        for name, size in self._index.execute(
            "SELECT id, byte_count FROM pictures WHERE NOT EXISTS (SELECT 1 FROM said WHERE picture = id)"
            " ORDER BY kept_at"
        ):
            going.append(name)
            wanted, missing = wanted - size, missing - size
            if wanted <= 0:
                break
        if missing > 0:
            return False
        self._drop(going)
        evicted += going
        return True

    def _drop(self, pictures: Iterable[str]) -> None:
        self._index.executemany("DELETE FROM pictures WHERE id = ?", ((picture,) for picture in pictures))

    def _is_kept(self, picture: str) -> bool:
        return self._index.execute("SELECT 1 FROM pictures WHERE id = ?", (picture,)).fetchone() is not None

    def _remove_files(self, pictures: Sequence[str]) -> None:
        """In a turn of its own: another writer may have kept one of them again."""
        if pictures:
            with index.writing(self._index):
                for picture in pictures:
                    if not self._is_kept(picture):
                        self.pictures.remove(picture)


def _stripped(entry: Entry) -> Stripped | UnstrippableError | None:
    if entry.picture is None:
        return None
    try:
        return stripped(bytes(entry.picture))
    except UnstrippableError as error:
        return error


def _listed(labels: Sequence[str]) -> str:
    return json.dumps(labels, ensure_ascii=False)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What disk and index say, as errors of the store."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFullError(f"the disk of {folder} is full") from error
        raise StoreError(f"{folder} cannot be written: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            raise StoreFullError(f"the disk of {folder} is full") from error
        raise StoreError(f"the index of {folder} cannot be written: {error}") from error
