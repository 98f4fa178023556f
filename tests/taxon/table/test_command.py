"""`taxon classify --out`: the whole of it, killed and gone on with."""

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taxon.classify import main
from taxon.table import processes, served
from taxon.table.journal import Journal
from taxon.table.rows import Row, answered, failed
from tests.fakes import toy_bundle


def fake_answers(chunks, settings, count=0):
    """An answer for each file but those called bad."""
    for chunk in chunks:
        yield [
            failed(name, "IMAGE_UNDECODABLE", "bad")
            if "bad" in name
            else answered(name, ["red"], [0.5], unknown=False, familiarity=None, variant="fp32")
            for name in chunk
        ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for index in range(300):
        (tmp_path / "in" / ("sub" if index % 3 else "") / f"{index:03}.jpg").touch()
    return tmp_path / "in"


@pytest.fixture
def faked(monkeypatch):
    monkeypatch.setattr(processes, "answers", fake_answers)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table(folder, models, tmp_path, capsys, faked):
    (folder / "bad.png").touch()
    (folder / "notes.txt").touch()
    out = tmp_path / "t.csv"
    assert main([str(folder), "--models", str(models), "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert told.out == f"{out}: 301 files, 1 of them without an answer\n"
    assert "left out 1 in" in told.err
    rows = read(out)
    assert [row["path"] for row in rows] == sorted(str(path) for path in folder.rglob("*.[jp][pn]g"))
    assert {(row["model"], row["version"]) for row in rows} == {("colors", "1")}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "models", "t.csv"]


def test_without_what_runs_models_nothing_is_begun(folder, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main([str(folder), "--models", str(models), "--out", str(tmp_path / "t.csv")]) == 2
    assert "needs onnxruntime; install it with: pip install -e '.[cpu]'" in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "models"]


KILLED = """
import os, signal, sys
from taxon.table import command, journal, processes, writing
from tests.taxon.table.test_command import fake_answers
processes.answers = fake_answers
where, after = sys.argv[1], int(sys.argv[2])
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
if where == "rows":
    add = journal.Journal.add
    def counted(self, rows):
        global after
        after -= 1
        add(self, rows if after else (row if index < 5 else kill() for index, row in enumerate(rows)))
    journal.Journal.add = counted
elif where == "table":
    values = writing._values
    def counted(*given):
        global after
        after -= 1
        return values(*given) if after else kill()
    writing._values = counted
elif where == "end":
    command.Journal.remove = lambda self: kill()
from taxon.classify import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("name", ["t.csv", pytest.param("t.parquet", marks=pytest.mark.slow)])
def test_killed_anywhere_the_same_command_ends_with_the_same_table(folder, models, tmp_path, faked, capsys, name):
    """In the middle of a row, of a row group, and between the table and the end of its journal."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    words = [str(folder), "--models", str(models), "--out", str(tmp_path / name)]
    for where, after in (("rows", 2), ("rows", 1), ("table", 7), ("end", 0)):
        program = [sys.executable, "-c", KILLED, where, str(after), *words]
        assert subprocess.run(program, timeout=60, capture_output=True).returncode == -signal.SIGKILL
        assert (tmp_path / name).exists() == (where == "end")
    assert main(words) == 0
    assert "300 files are done already" in capsys.readouterr().err
    whole = tmp_path / f"whole-{name}"
    assert main([*words[:-1], str(whole)]) == 0
    assert (tmp_path / name).read_bytes() == whole.read_bytes()
    left = {entry.name for entry in tmp_path.iterdir() if entry.suffix != ".tmp"}
    assert left == {"in", "models", name, whole.name}


def test_what_was_begun_goes_on_with_what_it_was_begun_with(folder, models, tmp_path, capsys, monkeypatch):
    """And with the version that was the default then."""

    def stop(chunks, settings, count=0):
        yield from fake_answers([next(chunks)], settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "answers", stop)
    words = [str(folder), "--models", str(models), "--out", str(tmp_path / "t.csv")]
    assert main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*words, "--max-results", "2"]) == 2
    assert "was begun with max_results '3'" in capsys.readouterr().err
    toy_bundle(models)
    given = []
    monkeypatch.setattr(processes, "answers", lambda *all_: given.append(all_[1]) or fake_answers(*all_))
    assert main(words) == 0
    assert given[0]["version"] == "1"
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_list_names_each_file_once(models, tmp_path, faked):
    lists = tmp_path / "list.txt"
    lists.write_bytes(b"a.jpg\nb.jpg\na.jpg\ncaf\xe9.jpg\ncaf\xe9.jpg\n")
    assert main([str(lists), "--models", str(models), "--out", str(tmp_path / "t.csv")]) == 1
    rows = read(tmp_path / "t.csv")
    assert [(row["path"], row["error"]) for row in rows] == [
        ("a.jpg", ""),
        ("b.jpg", ""),
        ("caf\\xe9.jpg", "NAME_INVALID"),
    ]


def test_with_a_server(folder, tmp_path, monkeypatch):
    given = {}

    def answers(chunks, base, server, choice, timeout_s, concurrency):
        given.update(choice=choice, concurrency=concurrency, target=server.target)
        return ([Row(name, error="X") for name in chunk] for chunk in chunks)

    monkeypatch.setattr(served, "pinned", lambda *_: ("pets", "7"))
    monkeypatch.setattr(served, "answers", answers)
    words = ["--server", "localhost:1", "--concurrency", "16", "--out", str(tmp_path / "t.jsonl")]
    assert main([str(folder), *words]) == 1
    assert (given["choice"].model_name, given["choice"].model_version) == ("pets", "7")
    assert (given["concurrency"], given["target"]) == (16, "localhost:1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in", "in", "--out", "t.csv"], "give one folder"),
        (["in", "--out", "t.csv", "--labelled"], "neither --labelled"),
        (["in", "--models", "models"], "--models goes with --out"),
        (["in", "--models", "nowhere", "--out", "t.csv"], "nowhere"),
        (["empty", "--models", "models", "--out", "t.csv"], "holds no picture"),
        (["in", "--out", "t.xlsx"], "must end in"),
        (["in", "--server", "127.0.0.1:1", "--timeout-s", "2", "--out", "t.csv"], "UNAVAILABLE"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(folder, models, tmp_path, monkeypatch, capsys, faked, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "in", "models"]


def test_two_commands_do_not_write_one_table(folder, models, tmp_path, capsys, faked):
    journal = Journal(tmp_path / "t.csv.journal")
    assert main([str(folder), "--models", str(models), "--out", str(tmp_path / "t.csv")]) == 2
    assert "another process writes" in capsys.readouterr().err
    journal.close()
