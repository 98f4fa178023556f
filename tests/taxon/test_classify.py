"""The command `taxon classify`: which files it takes, what it prints, how it exits."""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from taxon.choice import Choice
from taxon.classify import Input, Row, accuracy, classify_inputs, find_inputs, main, to_json, to_table
from taxon.client import AsyncClient
from taxon.connection import Connection
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def answer(*labels: str, unknown: bool = False) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=[
            pb.Classification(label=label, class_index=i, score=0.9 / (i + 1)) for i, label in enumerate(labels)
        ],
        unknown=unknown,
    )


class CatsOnly(pb_grpc.ClassificationServiceServicer):
    """Knows cats and dogs, or of numbers `height`; everything is a cat, and nothing a file without bytes."""

    def GetModel(self, request, context):  # noqa: N802 - gRPC's name
        model = pb.Model(name="animals", labels=["cat", "dog"])
        model.input.features.feature_count = 1
        model.input.features.feature_names.append("height")
        return pb.GetModelResponse(model=model)

    def Classify(self, request, context):  # noqa: N802 - gRPC's name
        if request.image == b"":
            return pb.ClassifyResponse(unknown=True) if request.features.values else context.abort(INVALID, "empty")
        return answer("cat")


@pytest.fixture
def cats():
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        pb_grpc.add_ClassificationServiceServicer_to_server(CatsOnly(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None)


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


def test_what_a_labelled_folder_leaves_out_is_told(folder, capsys):
    (folder / "cat" / "0.heic").touch()
    find_inputs([folder], labelled=True)
    assert "left out 1 in" in capsys.readouterr().err


def test_no_picture_to_train_on_is_sent_to_count_the_accuracy(tmp_path, capsys):
    """Each reason is told: the many pictures to train on do not hide what else is left out."""
    for name in ("train/cat/a.png", "train/cat/b.heic", "train/dog/a.png", "val/cat/c.png", "val/dog/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {given.path.name for given in find_inputs([tmp_path], labelled=True)} == {"c.png"}
    first, second = capsys.readouterr().err.splitlines()
    assert f"left out 1 in {tmp_path}, the first {tmp_path}/train/cat/b.heic: is not a picture by its name" in first
    assert f"left out 2 in {tmp_path}, the first {tmp_path}/train/cat/a.png: is there to train on" in second
    assert {given.path.name for given in find_inputs([tmp_path])} == {"a.png", "c.png"}


def test_a_folder_of_links_is_called_as_they_are(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.jpg").touch()
    (tmp_path / "cat").symlink_to(tmp_path / "store")
    found = find_inputs([tmp_path / "cat", tmp_path / "cat" / "1.jpg"], labelled=True)
    assert [given.label for given in found] == ["cat", "cat"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("height,kind\n1,\n2,cat\n", "1 of 2 inputs have no true label, the first {} row 1"),
        ("kind,height\ncat,1\n", "1 of 1 inputs have no true label"),
        ("height,kind\n1,horse\n2,cow\n", r"knows none of the labels ['cow', 'horse']"),
    ],
)
def test_the_accuracy_of_rows_needs_labels_that_the_model_has(cats, tmp_path, capsys, rows, told):
    """A row without one, and an answer `unknown` or none at all, would be taken for equal."""
    file = tmp_path / "rows.csv"
    file.write_text(rows)
    assert main([str(file), "--labelled", "--server", cats]) == 2
    error = capsys.readouterr().err
    assert told.format(file) in error
    assert error.count("\n") == 1
    assert main([str(file), "--server", cats]) == 0


def test_only_what_needs_the_model_asks_for_it(cats, tmp_path, monkeypatch):
    """A label says nothing of whether the accuracy is wanted, nor does its absence."""
    path = tmp_path / "1.png"
    path.write_bytes(b"something")
    monkeypatch.setattr(AsyncClient, "get_model", lambda *_, **__: pytest.fail("the model was asked for"))
    (row,) = asyncio.run(classify_inputs([Input(path, label="cat")], Connection(cats), Choice(), 5.0, 1))
    assert row.label == "cat"
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"1 of 1 inputs have no true label, the first .*1\.png"):
        asyncio.run(classify_inputs([Input(path)], Connection(cats), Choice(), 5.0, 1, labelled=True))


def test_the_accuracy_counts_what_was_not_answered_as_wrong(cats, folder, capsys):
    for name in ("cat/b.JPG", "dog/more/c.jfif"):
        (folder / name).write_bytes(b"something")
    assert main([str(folder), "--labelled", "--server", cats]) == 1  # cat/a.png is empty
    assert "accuracy 33.33% (1 of 3, 1 without an answer)" in capsys.readouterr().out
    assert not Row(Path("a"), None, OSError("gone")).correct


def test_the_accuracy_says_what_is_wrong_by_no_mistake():
    right, mistaken, declined = answer("cat"), answer("dog"), answer("cat", unknown=True)
    rows = [Row(Path("a"), given, true_label="cat") for given in (right, mistaken, declined, declined)]
    assert accuracy(rows) == "accuracy 25.00% (1 of 4, 2 unknown)"
    assert accuracy(rows[:2]) == "accuracy 50.00% (1 of 2)"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_whatever_the_terminal_can_show(cats, tmp_path, monkeypatch, encoding):
    (tmp_path / "caf\u00e9 \u732b\U0001f600.jpg").write_bytes(b"something")
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding=encoding))
    assert main([str(tmp_path), "--json", "--server", cats]) == 0
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding))["path"].endswith("caf\u00e9 \u732b\U0001f600.jpg")


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
