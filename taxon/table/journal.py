"""What is known so far, in a file beside the table: rows in the order in which they came, in SQLite.

A row is wholly there or not at all, whenever the process or the machine stops; then what the last moments brought may
be missing, and is done anew. Rows are only appended, so that one costs the same whether it is the first or the
millionth. Nothing is held in memory.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from taxon.table.rows import Row

SUFFIX = ".journal"
APPLICATION = 0x7461786F
"""`PRAGMA application_id` of these files: "taxo"."""
COLUMNS = ", ".join(Row._fields)
PLACES = ", ".join("?" * len(Row._fields))
AT_ONCE = 500
"""Names in one question."""


class Journal:
    """The rows of one table. One process at a time has it.

    Args:
        path: Its file, which is made if it is missing.

    Raises:
        ValueError: Another process has it, or the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_open = True
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ValueError(f"another process writes {path}: wait for it, or choose another --out") from error
            raise OSError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is not a journal of this command: {error}") from error

    def _open(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")  # held until the process ends, however it does
        run("BEGIN EXCLUSIVE")
        (application,) = run("PRAGMA application_id").fetchone()
        (table_count,) = run("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or table_count):  # without both it is new
            raise sqlite3.DatabaseError("it belongs to another program")
        run("COMMIT")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA temp_store = FILE")
        run("BEGIN EXCLUSIVE")
        run(f"PRAGMA application_id = {APPLICATION}")
        run("CREATE TABLE IF NOT EXISTS settings (document TEXT NOT NULL)")
        run(f"CREATE TABLE IF NOT EXISTS rows ({COLUMNS})")
        run("COMMIT")

    @property
    def settings(self) -> dict[str, str]:
        """What the rows were made with; empty: nothing has been begun."""
        found = self._database.execute("SELECT document FROM settings").fetchone()
        settings: dict[str, str] = json.loads(found[0]) if found else {}
        return settings

    def begin(self, settings: Mapping[str, str]) -> None:
        """Writes down what the rows will be made with."""
        self._database.execute("INSERT INTO settings VALUES (?)", (json.dumps(settings),))

    def resume(self) -> tuple[int, int]:
        """Prepares `new`. Returns how many files have rows, and how many of those an error."""
        run = self._database.execute
        run("CREATE TEMP TABLE seen (path TEXT PRIMARY KEY) WITHOUT ROWID")
        run("INSERT OR IGNORE INTO seen SELECT path FROM rows ORDER BY path")
        (count,) = run("SELECT COUNT(*) FROM seen").fetchone()
        (failures,) = run("SELECT COUNT(DISTINCT path) FROM rows WHERE error != ''").fetchone()
        return count, failures

    def new(self, names: Sequence[str], *, keep: bool) -> list[str]:
        """Those without a row, each once.

        Args:
            names: In any order.
            keep: Whether they may come again, as in a list.
        """
        names = list(dict.fromkeys(names))
        seen: set[str] = set()
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            question = f"SELECT path FROM seen WHERE path IN ({', '.join('?' * len(part))})"  # noqa: S608 - only marks
            seen.update(path for (path,) in self._database.execute(question, part))
        found = [name for name in names if name not in seen]
        if keep and found:
            with self._transaction():
                self._database.executemany("INSERT INTO seen VALUES (?)", ((name,) for name in found))
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps rows: all or, if the process ends meanwhile, none."""
        with self._transaction():
            self._database.executemany(f"INSERT INTO rows VALUES ({PLACES})", rows)  # noqa: S608 - only marks

    def _transaction(self) -> sqlite3.Connection:
        self._database.execute("BEGIN")
        return self._database  # which commits at the end of `with`, or rolls back

    def rows(self) -> Iterator[Row]:
        """Every file's row, by path."""
        for values in self._database.execute(f"SELECT {COLUMNS} FROM rows GROUP BY path ORDER BY path"):  # noqa: S608
            row = Row(*values)
            yield row._replace(unknown=bool(row.unknown))

    def close(self) -> None:
        """Lets go of it. One without rows is removed."""
        if not self._is_open:
            return
        if self._database.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is None:
            self.remove()
            return
        self._database.close()
        self._is_open = False

    def remove(self) -> None:
        """Closes it and removes its files."""
        self._database.close()
        self._is_open = False
        for suffix in ("", "-wal"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
