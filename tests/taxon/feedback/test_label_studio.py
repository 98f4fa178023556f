"""Tasks out and annotations in, as Label Studio writes them."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from taxon import cli
from taxon.feedback import review
from taxon.feedback.label_studio import NONE
from taxon.feedback.store import Store
from tests.taxon.feedback.entries import answer, entry


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.add([entry(0, labels=("blue",)), entry(0, who="joe", labels=("green",)), entry(1), entry(2, who=None)])
    yield made
    made.close()


@pytest.fixture
def run(store, capsys):
    def called(verb, *words, status=0):
        assert cli.main(["feedback", verb, *map(str, words), "--store", str(store.place)]) == status
        told = capsys.readouterr()
        return told.err if status else json.loads(told.out)

    return called


def annotation(*choices, who=7, cancelled=False):
    result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [*choices]}}]
    return {"id": 1, "completed_by": who, "was_cancelled": cancelled, "result": result if choices else []}


def test_tasks_go_out_and_annotations_come_in(store, run, tmp_path):
    out = tmp_path / "tasks"
    assert run("export-tasks", "--out", out) == {"tasks": 2}
    tasks = json.loads((out / "tasks.json").read_text())
    first = next(task for task in tasks if task["data"]["said"] == "blue (1), green (1)")
    picture = first["data"]["picture"]
    assert first["data"]["image"] == f"/data/local-files/?d=tasks/pictures/{picture}.png"
    assert (out / "pictures" / f"{picture}.png").is_file()
    assert first["predictions"][0]["model_version"] == "colors:1"
    assert first["predictions"][0]["result"][0]["value"] == {"choices": ["red"]}
    choices = [choice.get("value") for choice in ElementTree.parse(out / "config.xml").iter("Choice")]
    assert choices == ["blue", "green", "red", NONE]

    first["annotations"] = [
        annotation("green"),
        annotation("green", who={"id": 8, "email": "eve@example.com"}),
        annotation("red", who=9, cancelled=True),
        annotation(who=10),
    ]
    tasks[1 - tasks.index(first)]["annotations"] = [annotation(NONE), annotation("ruby", who=8)]
    (tmp_path / "done.json").write_text(
        json.dumps([*tasks, {"data": {"picture": "0" * 64}, "annotations": [annotation("red")]}])
    )
    assert run("import-tasks", tmp_path / "done.json") == {"said": 4, "skipped": 2, "unknown": 1}
    cases = {case.picture: case for case in review.cases(store)}
    assert cases[picture].said[0] == (("green",), 3)
    (other,) = (case for case in cases.values() if case.picture != picture)
    assert {labels for labels, _ in other.said} == {("blue",), (), ("ruby",)}
    assert [voice.proposed for voice in other.voices if voice.labels == ("ruby",)] == [("ruby",)]


def test_the_short_form_and_pictures_that_nobody_has_spoken_of(store, run, tmp_path):
    assert run("export-tasks", "--out", tmp_path / "tasks", "--unlabelled") == {"tasks": 1}
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    short = [{"id": 3, "image": task["data"]["image"], "label": "blue", "annotator": 4}]
    (tmp_path / "min.json").write_text(json.dumps(short))
    assert run("import-tasks", tmp_path / "min.json", "--share") == {"said": 1}
    case = next(case for case in review.cases(store) if case.picture == task["data"]["picture"])
    assert (case.agreed, case.voices[0].consent) == (("blue",), "share")


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"annotations": [{"result": [{"type": "choices"}]}]}]'])
def test_other_files_are_refused(run, tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    assert "bad.json" in run("import-tasks", tmp_path / "bad.json", status=2)


@pytest.mark.parametrize("label", ["cat|dog", " \n", "a\x00b", 257 * "x", "\ud800"])
def test_labels_that_no_list_can_hold_are_refused(store, run, tmp_path, label):
    """As the service refuses them; and what is good beside them is not half taken."""
    run("export-tasks", "--out", tmp_path / "tasks")
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    before = [*store.said()]
    tasks[0]["annotations"] = [annotation("red")]
    tasks[1]["annotations"] = [annotation(label)]
    (tmp_path / "done.json").write_text(json.dumps(tasks))
    assert f"task 2 of {tmp_path / 'done.json'}: {label!r} is no label" in run(
        "import-tasks", tmp_path / "done.json", status=2
    )
    assert [*store.said()] == before
    tasks[1]["annotations"] = [annotation(" ruby ", "ruby"), annotation("red", who="\ud800")]
    (tmp_path / "done.json").write_text(json.dumps(tasks))
    assert "is no text" in run("import-tasks", tmp_path / "done.json", status=2)
    tasks[1]["annotations"].pop()
    (tmp_path / "done.json").write_text(json.dumps(tasks))
    assert run("import-tasks", tmp_path / "done.json") == {"said": 2}
    assert ("ruby",) in {kept.labels for kept in store.said()}


def test_who_leaves_is_gone_from_tasks_too(store, run, tmp_path):
    store.add([entry(3, who="joe", answer=answer(3))])
    run("export-tasks", "--out", tmp_path / "tasks")
    done = run("forget", "joe")
    assert done["exports"] == [str(tmp_path / "tasks")]
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert sorted(task["data"]["said"] for task in tasks) == ["", "blue (1)"]
    assert len([*(tmp_path / "tasks" / "pictures").iterdir()]) == 2


def test_a_folder_in_use_is_left_alone(run, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").touch()
    assert "not empty" in run("export-tasks", "--out", tmp_path / "used", status=2)
