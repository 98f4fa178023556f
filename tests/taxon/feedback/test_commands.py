"""`taxon feedback` on a folder: listed, exported, forgotten."""

import csv
import json

import pytest

from taxon import cli, labelled_folder
from taxon.bundle import store as bundles
from taxon.feedback.exporting import ONLY_LISTED
from taxon.feedback.picture_room import name_of
from taxon.feedback.store import Store
from taxon.feedback.stripped import stripped
from taxon.training.dataset import tables
from tests.fakes import toy_bundle
from tests.taxon.feedback.entries import SHADES, answer, entry, words_of

NAMES = [name_of(stripped(content).content) for content in SHADES]


@pytest.fixture
def store(place):
    made = Store(place)
    yield made
    made.close()


@pytest.fixture
def run(store, capsys):
    def called(verb, *words, status=0):
        capsys.readouterr()
        place = [word for pair in zip(("--store", "--pictures"), words_of(store.place), strict=False) for word in pair]
        assert cli.main(["feedback", verb, *map(str, words), *place]) == status
        told = capsys.readouterr()
        return told.err if status else [json.loads(line) for line in told.out.splitlines()]

    return called


def rows(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_what_was_said_is_listed(store, run):
    store.add([entry(0), entry(1, who="joe")])
    assert [line["contributor"] for line in run("list")] == [store.pseudonyms.of(who) for who in ("jane", "joe")]
    (jane,) = run("list", "--contributor", "jane")
    assert (jane["labels"], jane["answered"], jane["picture"]) == (["blue"], ["red", "blue"], NAMES[0])
    assert run("list", "--figures")[0]["said"] == 2
    assert "jane" not in json.dumps(run("list"))


def fill(store):
    said = entry(0).said
    store.add(
        [
            entry(0, labels=("blue",)),
            entry(0, labels=("blue",), who="joe"),
            entry(1, labels=("red",)),
            entry(2, labels=("red",)),
            entry(2, labels=("blue",), who="joe"),
            entry(3, labels=()),
            entry(4, said=said._replace(labels=("ruby",), proposed=("ruby",))),
            entry(5, said=said._replace(labels=("a/b",), consent="share")),
            entry(6, said=said._replace(labels=("red",)), answer=answer(6)._replace(model="other")),
            entry(7, who=None),
        ]
    )


def test_what_people_agree_on_is_exported_and_trains(store, run, tmp_path):
    fill(store)
    out = tmp_path / "out"
    (counts,) = run("export", "--out", out)
    assert counts == {"exported": 4, "contradictory": 1, "none": 1, "proposal": 1}
    listed = {row["path"]: row["label"] for row in rows(out / "samples.csv")}
    assert listed == {
        f"blue/{NAMES[0]}.png": "blue",
        f"red/{NAMES[1]}.png": "red",
        f"red/{NAMES[6]}.png": "red",
        f"{ONLY_LISTED}/{NAMES[5]}.png": "a/b",
    }
    labelled = tables.manifest(tables.read_table(out / "samples.csv"))
    assert (labelled.labels, len(labelled.samples), labelled.faults) == (("a/b", "blue", "red"), 4, ())
    assert labelled_folder.read(out).labels == ("blue", "red")
    for path in listed:
        assert name_of((out / path).read_bytes()) in path
    provenance = rows(out / "provenance.csv")
    assert len(provenance) == 5  # two spoke of one picture
    assert provenance[0] | {"said_at": ""} == {
        "path": f"blue/{NAMES[0]}.png",
        "label": "blue",
        "sha256": NAMES[0],
        "contributor": store.pseudonyms.of("jane"),
        "consent": "train",
        "license": "CC0-1.0",
        "said_at": "",
        "request_id": "id-0",
        "model": "colors",
        "version": "1",
        "variant": "fp32",
        "answered": "red|blue",
        "score": "0.9",
        "unknown": "false",
        "familiarity": "",
        "note": "a note",
    }
    assert "not empty" in run("export", "--out", out, status=2)


def test_what_was_decided_goes_before_what_people_say(store, run, tmp_path):
    """Rejected, corrected, decided where people differ, corrected to none; and one that somebody doubts again."""
    fill(store)
    for number, *verdict in (
        (0, "--reject"),
        (1, "--label", "blue"),
        (2, "--label", "red"),
        (4, "--label", "red"),
        (5, "--none-of-these"),
        (6, "--accept"),
    ):
        run("decide", NAMES[number], *verdict, "--reviewer", "ann")
    store.add([entry(6, who="joe", labels=("blue",))])
    (counts,) = run("export", "--out", tmp_path / "out")
    assert counts == {"exported": 3, "rejected": 1, "contradictory": 1, "none": 2}
    listed = {row["path"]: row["label"] for row in rows(tmp_path / "out" / "samples.csv")}
    assert listed == {
        f"blue/{NAMES[1]}.png": "blue",
        f"red/{NAMES[2]}.png": "red",
        f"red/{NAMES[4]}.png": "red",
    }
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} == {NAMES[1], NAMES[2], NAMES[4]}


def test_a_decision_that_is_undone_counts_no_longer(store, run, tmp_path):
    store.add([entry(0, labels=("blue",))])
    run("decide", NAMES[0], "--reject", "--reviewer", "ann")
    run("undo", NAMES[0], "--reviewer", "ann")
    assert run("export", "--out", tmp_path / "out") == [{"exported": 1}]


def test_more_or_less_may_be_wanted(store, run, tmp_path):
    fill(store)
    assert run("export", "--out", tmp_path / "a", "--share") == [{"exported": 1, "other": 6}]
    wider = "--proposals", "--none-label", "something else", "--model", "colors"
    assert run("export", "--out", tmp_path / "b", *wider) == [{"exported": 5, "contradictory": 1, "other": 1}]
    assert {row["label"] for row in rows(tmp_path / "b" / "samples.csv")} == {
        "blue",
        "red",
        "something else",
        "ruby",
        "a/b",
    }


def publish(models, run_id, *parents, monkeypatch, **given):
    origin = "tests.fakes.PROVENANCE"
    from tests.fakes import PROVENANCE

    changed = PROVENANCE.model_copy(update={"run_id": run_id, "parents": parents})
    monkeypatch.setattr(origin, changed)
    return toy_bundle(models, **given)


def trained(folder, run_id, seen):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": run_id}))
    (folder / "samples.csv").write_text(f"path,label,split,sha256\nx.png,red,train,{seen}\n")


def test_who_leaves_leaves_nothing_but_the_names_of_versions(store, run, tmp_path, monkeypatch):
    fill(store)
    store.add([entry(9, who="joe", labels=("blue",))])
    run("export", "--out", tmp_path / "out")
    run("export", "--out", tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    for number, seen in enumerate((NAMES[1], NAMES[9])):
        trained(tmp_path / "runs" / f"run-{number}", f"id-of-{number}", seen)
    models = tmp_path / "models"
    publish(models, "id-of-0", monkeypatch=monkeypatch)
    publish(models, "id-of-1", monkeypatch=monkeypatch)
    publish(models, "id-of-2", "colors/1", monkeypatch=monkeypatch, maps=True, thumbnails=("0" * 64, NAMES[9]))
    assert bundles.versions(models, "colors") == [1, 2, 3]
    (done,) = run("forget", "jane", "--runs", tmp_path / "runs", "--models", models)
    assert done == {
        "rows": 7,
        "pictures": 5,
        "exports": [str(tmp_path / "out")],
        "missing_exports": [str(tmp_path / "moved")],
        "runs": [str(tmp_path / "runs" / "run-0")],
        "versions": ["colors/1", "colors/3"],
        "thumbnails": [],  # what joe alone spoke of
    }
    assert {kept.contributor for kept in store.said()} == {store.pseudonyms.of("joe")}
    left = {path.name.partition(".")[0] for path in (tmp_path / "out").rglob("*.png")}
    assert left == {NAMES[0], NAMES[9]}
    assert {row["path"] for row in rows(tmp_path / "out" / "samples.csv")} == {
        f"blue/{NAMES[0]}.png",
        f"blue/{NAMES[9]}.png",
    }
    assert store.pseudonyms.of("jane") not in (tmp_path / "out" / "provenance.csv").read_text()
    assert not (tmp_path / "out" / "red").exists()
    (again,) = run("forget", "jane")
    assert (again["rows"], again["pictures"], again["exports"]) == (0, 0, [])


def test_a_version_of_a_round_is_named_too(store, run, tmp_path, monkeypatch):
    """In the folders that `taxon train` and `taxon round` write if nothing else is said."""
    fill(store)
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "runs/first", "id-of-first", "0" * 64)
    trained(tmp_path / "rounds/1/run", "id-of-round", NAMES[1])
    publish(tmp_path / "models", "id-of-first", monkeypatch=monkeypatch)
    publish(tmp_path / "models", "id-of-round", "id-of-first", monkeypatch=monkeypatch)
    (done,) = run("forget", "jane", "--runs", "runs", "--runs", "rounds", "--models", "models")
    assert (done["runs"], done["versions"]) == (["rounds/1/run"], ["colors/2"])


def test_a_version_that_shows_the_picture_is_named_whatever_it_was_made_from(store, run, tmp_path, monkeypatch):
    fill(store)
    models = tmp_path / "models"
    publish(models, "id-of-another", monkeypatch=monkeypatch, maps=True, thumbnails=("0" * 64,))
    publish(models, "id-of-another", monkeypatch=monkeypatch, maps=True, thumbnails=("0" * 64, NAMES[1]))
    (done,) = run("forget", "jane", "--models", models)
    assert (done["versions"], done["thumbnails"]) == ([], ["colors/2"])


@pytest.mark.parametrize("option", ["--runs", "--models"])
def test_who_leaves_is_still_there_if_a_folder_to_look_in_is_not(store, run, tmp_path, option):
    fill(store)
    run("export", "--out", tmp_path / "out")
    assert f"{tmp_path / 'nowhere'}: No such file" in run("forget", "jane", option, tmp_path / "nowhere", status=2)
    assert store.pseudonyms.of("jane") in {kept.contributor for kept in store.said()}
    assert store.pseudonyms.of("jane") in (tmp_path / "out" / "provenance.csv").read_text()


def test_what_cannot_be_done_says_so(run, store, tmp_path, capsys):
    assert cli.main(["feedback", "list", "--store", str(tmp_path / "nowhere")]) == 2
    assert "is not there" in capsys.readouterr().err
    assert "cannot be read" in run("list", "--key", tmp_path / "no-key", status=2)
