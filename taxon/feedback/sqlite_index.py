"""The index of a store in a folder: one SQLite file with a write-ahead log.

`synchronous=FULL` has each commit on the disk before it returns; `secure_delete` overwrites what is deleted.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taxon.feedback.errors import StoreError, StoreFullError
from taxon.feedback.index import BUSY_S, Row

FILE = "index.sqlite"
SCHEMAS = (
    """
CREATE TABLE pictures (
    id TEXT PRIMARY KEY, extension TEXT NOT NULL, byte_count INTEGER NOT NULL, kept_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pictures_by_age ON pictures (kept_at);
CREATE TABLE answers (
    request_id TEXT PRIMARY KEY, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE, why TEXT NOT NULL,
    model TEXT NOT NULL, version INTEGER NOT NULL, variant TEXT NOT NULL, labels TEXT NOT NULL, score REAL,
    unknown INTEGER NOT NULL, familiarity REAL, answered_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_picture ON answers (picture);
CREATE TABLE said (
    contributor TEXT NOT NULL, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE,
    request_id TEXT NOT NULL REFERENCES answers ON DELETE CASCADE, labels TEXT NOT NULL, proposed TEXT NOT NULL,
    consent TEXT NOT NULL, license TEXT NOT NULL, note TEXT NOT NULL, said_at REAL NOT NULL,
    PRIMARY KEY (contributor, picture)
) STRICT, WITHOUT ROWID;
CREATE INDEX said_by_picture ON said (picture);
CREATE INDEX said_by_answer ON said (request_id);
CREATE TABLE tallies (
    contributor TEXT NOT NULL, hour INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (contributor, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE exports (folder TEXT PRIMARY KEY, exported_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE total (byte_count INTEGER NOT NULL) STRICT;
INSERT INTO total VALUES (0);
CREATE TRIGGER picture_comes AFTER INSERT ON pictures BEGIN
    UPDATE total SET byte_count = byte_count + NEW.byte_count;
END;
CREATE TRIGGER picture_goes AFTER DELETE ON pictures BEGIN
    UPDATE total SET byte_count = byte_count - OLD.byte_count;
END;
""",
    """
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE,
    verdict TEXT NOT NULL, labels TEXT NOT NULL, reviewer TEXT NOT NULL, why TEXT NOT NULL, decided_at REAL NOT NULL,
    undone_by TEXT NOT NULL DEFAULT '', undone_at REAL
) STRICT;
CREATE INDEX decisions_by_picture ON decisions (picture);
CREATE TABLE suspicions (
    picture TEXT PRIMARY KEY REFERENCES pictures ON DELETE CASCADE, label TEXT NOT NULL, suspicion REAL NOT NULL,
    likely TEXT NOT NULL, judged_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
""",
    "CREATE TABLE store (id TEXT NOT NULL) STRICT;",
)
"""Each makes of the tables of one version those of the next, the first of none."""


class SqliteIndex:
    """See `index.Index`."""

    def __init__(self, folder: Path) -> None:
        """Opens the index of a folder, and makes it if there is none. One at a time: SQLite waits for nobody when it
        changes its journal.

        Raises:
            StoreError: The file is no index, is damaged, or was made by a newer Taxon; or see `index.Index`.
        """
        self._file = folder / FILE
        with self._told():
            self._connection = sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None)
            try:
                version = self._open()
            except BaseException:
                self._connection.close()
                raise
        if version > len(SCHEMAS):
            self._connection.close()
            raise StoreError(
                f"{self._file} was made by a newer Taxon (index version {version}, known is {len(SCHEMAS)})"
            )

    def _open(self) -> int:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self.writing():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            for number, schema in enumerate(SCHEMAS[version:], version + 1):
                for statement in _statements(schema):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number}")
        return int(version)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """See `index.Index`."""
        with self._told():
            cursor = self._connection.execute(statement, parameters)
        return self._fetched(cursor)

    def _fetched(self, cursor: sqlite3.Cursor) -> Iterator[Row]:
        with self._told():
            yield from cursor

    def first(self, query: str, parameters: Sequence[Any] = ()) -> Row | None:
        """See `index.Index`."""
        return next(self.execute(query, parameters), None)

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """See `index.Index`."""
        with self._told():
            self._connection.executemany(statement, parameters)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `index.Index`."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # some failures have rolled back already
                self._connection.execute("ROLLBACK")
            raise

    def check_key(self, digest: str) -> None:
        """Nothing: the key lies in the same folder."""

    def tidy(self) -> None:
        """Leaves nothing of deleted rows in the write-ahead log either."""
        self.first("PRAGMA wal_checkpoint(TRUNCATE)")

    def overwrite_deleted(self) -> None:
        """See `index.Index`."""
        self.tidy()

    def close(self) -> None:
        """See `index.Index`."""
        self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite says, as errors of the store."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise StoreFullError(f"the disk of {self._file.parent} is full") from error
            raise StoreError(f"the index of {self._file.parent} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._file} is damaged, or no index of a store: {error}") from error


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
