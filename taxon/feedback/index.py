"""The index of a store: one SQLite file with a write-ahead log, written by any number of processes, one at a time.

`synchronous=FULL` has each commit on the disk before it returns; `secure_delete` overwrites what is deleted.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxon.feedback import decisions

FILE = "index.sqlite"
BUSY_S = 30.0
"""How long a writer waits for its turn."""
VERSION = 2
"""2: with what reviewers decide."""
SCHEMA = """
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
"""


class IndexFileError(Exception):
    """The index is none, is damaged, or was made by a newer Taxon."""


def connect(folder: Path) -> sqlite3.Connection:
    """Opens the index of a store, and makes it if there is none. For the thread that calls.

    Raises:
        IndexFileError: See there.
        sqlite3.OperationalError: The folder cannot be written, or its disk is full.
    """
    try:
        index = sqlite3.connect(folder / FILE, timeout=BUSY_S, isolation_level=None)
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = FULL")
        index.execute("PRAGMA foreign_keys = ON")
        index.execute("PRAGMA secure_delete = ON")
        with writing(index):
            (version,) = index.execute("PRAGMA user_version").fetchone()
            for known, schema in enumerate((SCHEMA, decisions.SCHEMA)):
                if version == known:
                    for statement in _statements(schema):
                        index.execute(statement)
                    version = known + 1
                    index.execute(f"PRAGMA user_version = {version}")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise IndexFileError(f"{folder / FILE} is damaged, or no index of a store: {error}") from error
    if version > VERSION:
        raise IndexFileError(f"{folder / FILE} was made by a newer Taxon (index version {version}, known is {VERSION})")
    return index


@contextmanager
def writing(index: sqlite3.Connection) -> Iterator[None]:
    """Waits for this writer's turn; what happens inside is kept as a whole or not at all, and no other writer, of any
    process, is at work meanwhile.
    """
    index.execute("BEGIN IMMEDIATE")
    try:
        yield
        index.execute("COMMIT")
    except BaseException:
        if index.in_transaction:  # some failures have rolled back already
            index.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
