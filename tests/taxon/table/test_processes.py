"""Worker processes beside this one: what they answer, and what becomes of files that end them."""

import os
import signal
import sys

import pytest

from taxon.table import processes
from taxon.table.files import LeftOut, Source
from tests.fakes import COLORS, picture


@pytest.fixture
def settings(models):
    return {"models": str(models), "model": "colors", "version": "1", "base": str(models.parent)}


@pytest.fixture
def names(models):
    for index, color in enumerate([*COLORS.values()] * 4):
        (models.parent / f"{index:02}.png").write_bytes(picture(color))
    return [f"{index:02}.png" for index in range(12)]


def chunks(names, size=4):
    return iter([names[start : start + size] for start in range(0, len(names), size)])


def test_every_file_has_a_row(settings, names, models):
    (models.parent / "bad.png").write_bytes(b"bad")
    (models.parent / "large.png").touch()
    os.truncate(models.parent / "large.png", 2**23 + 1)
    given = [*names, "bad.png", "large.png", "gone.png"]
    found = {row.path: row for rows in processes.answers(chunks(given), settings, 2) for row in rows}
    assert [found[name].label for name in names] == [*COLORS] * 4
    errors = [found[name].error for name in given[12:]]
    assert errors == ["IMAGE_UNDECODABLE", "IMAGE_TOO_LARGE", "FILE_UNREADABLE"]


def test_a_model_that_is_not_fit_is_refused(settings, names, models):
    (models / "colors" / "1" / "model.onnx").write_bytes(b"bad")
    with pytest.raises(ValueError, match="sha256"):
        list(processes.answers(chunks(names), settings, 1))


ENDING = """
import os, signal, sys
from multiprocessing.connection import Connection
from taxon.table.rows import Row
connection, poison = Connection(int(sys.argv[1])), sys.argv[2:]
connection.send({"cores": 2})
while True:
    try:
        names = connection.recv()
    except EOFError:
        break
    if set(names) & set(poison):
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send([Row(name) for name in names])
"""


def ending(monkeypatch, *poison):
    """Workers that the kernel kills over some files. Returns what has been started."""
    started = []

    def words(descriptor, settings):
        started.append(descriptor)
        return [sys.executable, "-c", ENDING, str(descriptor), *poison]

    monkeypatch.setattr(processes, "command", words)
    return started


def test_a_file_that_ends_workers_costs_itself_only(monkeypatch):
    """Its neighbours are tried again, each alone."""
    started = ending(monkeypatch, "05.png")
    names = [f"{index:02}.png" for index in range(12)]
    found = {row.path: row for rows in processes.answers(chunks(names), {}, 2) for row in rows}
    assert sorted(found) == names
    assert [name for name, row in found.items() if row.error] == ["05.png"]
    assert found["05.png"].error == "INFERENCE_FAILED"
    assert "status -9" in found["05.png"].message
    assert len(started) == 4


def test_workers_that_end_whatever_they_are_given_end_the_run(monkeypatch):
    names = [f"{index:02}.png" for index in range(12)]
    ending(monkeypatch, *names)
    with pytest.raises(ValueError, match="one after another"):
        list(processes.answers(chunks(names), {}, 2))


def test_long_names_do_not_have_both_ends_wait_for_each_other(monkeypatch, tmp_path):
    """Each would write until the other reads."""
    ending(monkeypatch)
    names = [f"{index:04}{'x' * 3000}" for index in range(512)]
    (tmp_path / "list.txt").write_text("\n".join(names))

    def too_long(*_):
        raise AssertionError  # no OSError, which `give` takes for a worker that has ended

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(10)
    try:
        rows = list(processes.answers(Source(tmp_path / "list.txt").chunks(LeftOut()), {}, 2))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert sorted(row.path for chunk in rows for row in chunk) == names
