"""The command `taxon classify`: which files it takes, what it prints, how it exits."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from taxon.classify import Row, find_inputs, main, to_json, to_table
from taxon.v1 import classification_service_pb2 as pb


def answer(*labels: str, unknown: bool = False) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=[
            pb.Classification(label=label, class_index=i, score=0.9 / (i + 1)) for i, label in enumerate(labels)
        ],
        unknown=unknown,
    )


def drawn(rows: list[Row], *, labelled: bool = False) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(to_table(rows, labelled=labelled))
    return console.export_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/b.JPG", "cat/a.png", "cat/.hidden.jpg", "dog/more/c.jfif", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_folders_are_searched_and_files_taken_as_named(folder, capsys):
    found = find_inputs([folder, folder / "notes.txt"])
    assert [given.path.name for given in found] == ["a.png", "b.JPG", "c.jfif", "notes.txt"]
    assert "left out 1" in capsys.readouterr().err


def test_labelled_folders_are_read_as_training_reads_them(folder):
    """`more` is no class; and a single file is of its folder's class."""
    found = find_inputs([folder, folder / "cat", folder / "cat" / "a.png"], labelled=True)
    assert [given.label for given in found] == ["cat", "cat", "dog", "cat", "cat", "cat"]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_name_that_is_not_utf8_is_refused_before_anything_is_sent(folder, capsys, labelled):
    (folder / "cat" / "caf\udce9.jpg").touch()
    assert main([str(folder), *(["--labelled"] if labelled else [])]) == 2
    error = capsys.readouterr().err
    assert "caf\\xe9.jpg is not UTF-8" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("name", "complaint"), [("nowhere", "does not exist"), ("empty", "holds no file")])
def test_nothing_to_send_exits_with_2(tmp_path, capsys, name, complaint):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / name)]) == 2
    assert complaint in capsys.readouterr().err


def test_the_table_shows_answers_and_errors():
    text = drawn(
        [
            Row(Path("a.png"), answer("cat", "dog", "bird", "fish")),
            Row(Path("b.png"), answer("cat", unknown=True)),
            Row(Path("c.png"), None, OSError("cannot read [this]")),
        ]
    )
    assert "cat" in text
    assert "dog 0.450, bird 0.300" in text
    assert "fish" not in text
    assert "unknown" in text
    assert "cannot read [this]" in text


def test_with_true_labels_the_table_shows_them():
    assert "true label" in drawn([Row(Path("a.png"), answer("cat"), true_label="dog")], labelled=True)


def test_json_has_the_message_or_the_error():
    good = to_json(Row(Path("a.png"), answer("cat")))
    assert good["response"]["classifications"][0]["label"] == "cat"
    assert good["response"]["classifications"][0]["class_index"] == 0
    assert to_json(Row(Path("a.png"), answer("cat"), true_label="dog"), labelled=True)["true_label"] == "dog"
    bad = to_json(Row(Path("a.png"), None, OSError("gone")))
    assert bad == {"path": "a.png", "error": {"reason": "", "message": "gone"}}
    json.dumps([good, bad])


def test_a_file_without_an_answer_exits_with_1(folder, capsys):
    code = main([str(folder / "cat"), "--server", "127.0.0.1:1", "--timeout-s", "3", "--json", str(folder / "dog")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert len(lines) == 3
    assert all("error" in line for line in lines)
