"""Answered pictures and what people say of them, in one place that any number of processes may write at once.

A picture is kept before its row is, and its row before anybody is told: what was acknowledged is there whenever the
machine stops, and whoever is killed leaves at most a picture that no row speaks of. Rows go before their pictures for
the same reason.
"""

import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taxon.feedback import decisions, reading
from taxon.feedback.belonging import joined
from taxon.feedback.decisions import Decision, Suspicion
from taxon.feedback.errors import StoreError, StoreFullError, TooMuchSaidError
from taxon.feedback.eviction import making_room
from taxon.feedback.opening import Place, open_parts
from taxon.feedback.picture_room import Named, PictureRoom, name_of, picture_of
from taxon.feedback.records import Answer, Entry, Kept, Said
from taxon.feedback.sealing import Seal
from taxon.feedback.stripped import Stripped, stripped
from taxon.feedback.unstrippable import UnstrippableError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HOUR_S = 3600.0
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
    """One place, seen from one thread."""

    def __init__(
        self, place: Place, bounds: Bounds = Bounds(), seal: Seal | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Opens it, and makes it if there is none.

        Args:
            place: A folder, or what several machines share.
            bounds: Of what is kept.
            seal: Encrypts pictures and notes.
            clock: Seconds since 1970.

        Raises:
            StoreError: It cannot be used, or its parts are of different stores.
        """
        self._bounds = bounds
        self._seal = seal
        self._clock = clock
        self.place = place
        try:
            self._index, blobs = open_parts(place)
        except OSError as error:
            raise StoreError(f"{error.filename or place} cannot be used: {error.strerror}") from error
        try:
            self.pictures = PictureRoom(blobs, seal)
            with _told():
                self.pseudonyms = joined(self._index, blobs, self.pictures)
        except BaseException:
            self._index.close()
            raise

    def close(self) -> None:
        """Lets go of the place."""
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
        new: dict[Named, bytes] = {}
        evicted: list[Named] = []
        results: list[AddedOrNot] = []
        with _told():
            try:
                with self._index.writing():
                    for entry, picture in zip(entries, ready, strict=True):
                        if isinstance(picture, UnstrippableError):
                            results.append(picture)
                        else:
                            results.append(self._add(entry, picture, new, evicted))
                    if new:
                        self.pictures.put(new)
            except BaseException:
                with suppress(OSError, StoreError):  # else a later sweep does
                    self._remove(new)
                raise
            self._remove(evicted)
        return results

    def answer(self, request_id: str) -> Answer | None:
        """What a model answered, if its picture is kept."""
        return reading.answer(self._index, request_id)

    def said(self) -> Iterator[Kept]:
        """All that people have said, in order of time."""
        return reading.said(self._index, self._seal)

    def unsaid(self) -> Iterator[tuple[str, str, Answer]]:
        """(picture, extension, answer) of what was captured and nobody has spoken of, the oldest first."""
        return reading.unsaid(self._index)

    def decide(self, decided: Sequence[Decision]) -> float:
        """Records what was decided, all or nothing; see `review` for what may be. Returns the time, as `decided_at`.

        Raises:
            StoreError: As for `add`.
        """
        with self._index.writing():
            decisions.add(self._index, decided, now := self._clock())
        return now

    def undo(self, pictures: Sequence[str], decided_by: str, reviewer: str) -> list[Decision]:
        """Takes decisions back, see `decisions.undo`. Returns them.

        Raises:
            StoreError: As for `add`.
        """
        with self._index.writing():
            return decisions.undo(self._index, pictures, decided_by, reviewer, self._clock())

    def decisions(self) -> dict[str, Decision]:
        """Those in force, by picture."""
        return decisions.in_force(self._index)

    def suspect(self, suspicions: Sequence[Suspicion]) -> None:
        """Remembers how likely labels are to be wrong.

        Raises:
            StoreError: As for `add`.
        """
        with self._index.writing():
            decisions.suspect(self._index, suspicions, self._clock())

    def suspicions(self) -> dict[str, Suspicion]:
        """What is remembered, by picture."""
        return decisions.suspicions(self._index)

    def figures(self) -> dict[str, int]:
        """How much there is, by name."""
        return reading.figures(self._index)

    def prune(self) -> int:
        """Removes what is too old, and what writers that were killed have left behind. Returns how many pictures.

        Raises:
            StoreError: As for `add`.
        """
        now = self._clock()
        with _told():
            with self._index.writing():
                old = "SELECT id FROM pictures WHERE kept_at < ?"
                gone = [picture for (picture,) in self._index.execute(old, (now - self._bounds.max_age_s,))]
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
        with _told():
            with self._index.writing():
                pictures = self.pictures_of(contributor)
                answered = [*self._index.execute("SELECT request_id FROM said WHERE contributor = ?", (contributor,))]
                self._index.execute("DELETE FROM said WHERE contributor = ?", (contributor,))
                self._drop_answers(request_id for (request_id,) in answered)
                self._index.execute("DELETE FROM tallies WHERE contributor = ?", (contributor,))
                others = "SELECT 1 FROM said WHERE picture = ?"
                gone = [picture for picture in pictures if not self._index.first(others, (picture,))]
                self._drop(gone)
                decisions.withdraw(self._index, {*pictures} - {*gone})
            self.sweep()
        self._index.overwrite_deleted()
        return gone, len(pictures)

    def pictures_of(self, contributor: str) -> list[str]:
        """Those of which a contributor, by pseudonym, has said something."""
        found = self._index.execute("SELECT picture FROM said WHERE contributor = ?", (contributor,))
        return [picture for (picture,) in found]

    def sweep(self) -> None:
        """Removes pictures that no row speaks of. Files of others are left alone."""
        blobs = list(self.pictures.blobs())
        kept = reading.kept_of(self._index, [*{picture_of(blob) for blob in blobs}])
        if left := [blob for blob in blobs if picture_of(blob) not in kept]:
            with self._index.writing():  # once more: some may just have been on their way
                kept = reading.kept_of(self._index, [picture_of(blob) for blob in left])
                self.pictures.remove_blobs(blob for blob in left if picture_of(blob) not in kept)
        self._index.tidy()

    def exported_to(self, folder: Path) -> None:
        """Remembers that there are copies, for `forget`."""
        with self._index.writing():
            self._index.execute(
                "INSERT INTO exports VALUES (?, ?)"
                " ON CONFLICT (folder) DO UPDATE SET exported_at = excluded.exported_at",
                (str(folder), self._clock()),
            )

    def export_removed(self, folder: Path) -> None:
        """Forgets copies that are there no more, by whoever made and removed them."""
        with self._index.writing():
            self._index.execute("DELETE FROM exports WHERE folder = ?", (str(folder),))

    def exports(self) -> list[Path]:
        """Where copies were written to."""
        return [Path(folder) for (folder,) in self._index.execute("SELECT folder FROM exports ORDER BY exported_at")]

    def _add(self, entry: Entry, picture: Stripped | None, new: dict[Named, bytes], evicted: list[Named]) -> AddedOrNot:
        now, said = self._clock(), entry.said
        if said is not None and (refusal := self._tally(self.pseudonyms.of(said.contributor), now)):
            return refusal
        if picture is None:
            row = self._index.first("SELECT picture FROM answers WHERE request_id = ?", (entry.answer.request_id,))
            if row is None or said is None:
                return None
            self._say(row[0], entry.answer.request_id, said, now)
            return "said"
        name = name_of(picture.content)
        is_new = not self._is_kept(name)
        if not is_new and said is None:
            return "known"
        if is_new:
            going = making_room(self._index, len(picture.content), self._bounds.max_bytes)
            if going is None:
                return StoreFullError(f"the store holds {self._bounds.max_bytes} bytes of pictures, as much as it may")
            self._drop(name for name, _ in going)
            evicted += going
            new[name, picture.extension] = picture.content
            kept = name, picture.extension, len(picture.content), now
            self._index.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", kept)
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
        mine = "SELECT request_id FROM said WHERE contributor = ? AND picture = ?"
        before = [answered for (answered,) in self._index.execute(mine, (who, picture)) if answered != request_id]
        self._index.execute(
            "INSERT INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (contributor, picture) DO UPDATE SET"
            " request_id = excluded.request_id, labels = excluded.labels, proposed = excluded.proposed,"
            " consent = excluded.consent, license = excluded.license, note = excluded.note, said_at = excluded.said_at",
            (who, picture, request_id, labels, proposed, said.consent, said.license, note, now),
        )
        self._index.execute("UPDATE pictures SET kept_at = ? WHERE id = ?", (now, picture))
        self._drop_answers(before)

    def _drop_answers(self, request_ids: Iterable[str]) -> None:
        """Those that are kept only because somebody spoke of them, and of which nobody speaks now."""
        self._index.executemany(
            "DELETE FROM answers WHERE request_id = ? AND why = 'feedback'"
            " AND NOT EXISTS (SELECT 1 FROM said WHERE said.request_id = answers.request_id)",
            [(request_id,) for request_id in request_ids],
        )

    def _tally(self, contributor: str, now: float) -> TooMuchSaidError | None:
        hour = int(now // HOUR_S)
        self._index.execute(
            "INSERT INTO tallies VALUES (?, ?, 1) ON CONFLICT (contributor, hour) DO UPDATE SET"
            " count = tallies.count + 1",
            (contributor, hour),
        )
        found = self._index.first("SELECT count FROM tallies WHERE contributor = ? AND hour = ?", (contributor, hour))
        most = self._bounds.max_said_per_hour
        return TooMuchSaidError(most, (hour + 1) * HOUR_S - now) if found and found[0] > most else None

    def _drop(self, pictures: Iterable[str]) -> None:
        self._index.executemany("DELETE FROM pictures WHERE id = ?", [(picture,) for picture in pictures])

    def _is_kept(self, picture: str) -> bool:
        return self._index.first("SELECT 1 FROM pictures WHERE id = ?", (picture,)) is not None

    def _remove(self, pictures: Iterable[Named]) -> None:
        """In a turn of its own: another writer may have kept one of them again."""
        if pictures := [*pictures]:
            with self._index.writing():
                self.pictures.remove([named for named in pictures if not self._is_kept(named[0])])


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
def _told() -> Iterator[None]:
    """What the place of pictures says, as errors of the store."""
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in FULL:
            raise StoreFullError(f"the disk{where} is full") from error
        raise StoreError(f"feedback{where} cannot be written: {error.strerror}") from error
