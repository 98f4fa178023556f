"""What is kept, and what a kill leaves of it."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from taxon.table.journal import Journal
from taxon.table.rows import Row, answered, failed

SETTINGS = {"model": "colors", "version": "1"}


def row(path: str) -> Row:
    return answered(path, ["röd"], [0.1 + 0.2], unknown=False, familiarity=None, variant="fp32")


def test_rows_come_back_as_they_were_sorted(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.begin(SETTINGS)
    rows = [row("b"), failed("a", "IMAGE_UNDECODABLE", "what"), row("c")._replace(unknown=True)]
    journal.add(rows)
    journal.close()
    again = Journal(tmp_path / "j")
    assert again.settings == SETTINGS
    assert list(again.rows()) == [rows[1], rows[0], rows[2]]
    assert again.resume() == (3, 1)
    assert again.new(["c", "d", "d", "a"], keep=False) == ["d"]
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_list_may_name_a_file_more_than_once(tmp_path):
    journal = Journal(tmp_path / "j")
    assert journal.resume() == (0, 0)
    assert journal.new(["a", "b", "a"], keep=True) == ["a", "b"]
    assert journal.new(["b", "c"], keep=True) == ["c"]


def test_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="another process writes"):
        Journal(tmp_path / "j")
    journal.close()
    assert list(tmp_path.iterdir()) == []  # nothing was done
    Journal(tmp_path / "j").close()


def test_another_file_is_left_as_it_is(tmp_path):
    (tmp_path / "j").write_bytes(b"a letter, long enough to be looked into" * 100)
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(ValueError, match="is not a journal"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize("application", [0, 77])
def test_the_database_of_another_program_is_left_as_it_is(tmp_path, application):
    with closing(sqlite3.connect(tmp_path / "j")) as database:
        database.execute(f"PRAGMA application_id = {application}")
        database.execute("CREATE TABLE letters (text)")
        database.commit()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(ValueError, match="belongs to another program"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["j"]


KILLED = """
import os, signal, sys
from pathlib import Path
from taxon.table.journal import Journal
from tests.taxon.table.test_journal import row
journal = Journal(Path(sys.argv[1]))
journal.add([row(str(number)) for number in range(10)])
def rows():
    yield row("half")
    os.kill(os.getpid(), signal.SIGKILL)
journal.add(rows())
"""


def test_a_kill_in_the_middle_of_a_row_spoils_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "j"], timeout=60)
    assert done.returncode == -signal.SIGKILL
    journal = Journal(tmp_path / "j")
    assert sorted(found.path for found in journal.rows()) == [str(number) for number in range(10)]
    assert journal.resume() == (10, 0)


def test_what_the_machine_lost_of_the_end_is_only_missing(tmp_path):
    """As after a power cut: the last bytes are not those that were written."""
    journal = Journal(tmp_path / "j")
    for number in range(20):
        journal.add([row(f"{number:02}")])
    copied = tmp_path / "cut"
    copied.mkdir()
    (copied / "j").write_bytes((tmp_path / "j").read_bytes())
    written = (tmp_path / "j-wal").read_bytes()
    (copied / "j-wal").write_bytes(written[:-5000] + bytes(900))
    journal.close()
    left = [found.path for found in Journal(copied / "j").rows()]
    assert 10 < len(left) < 20
    assert left == [f"{number:02}" for number in range(len(left))]
