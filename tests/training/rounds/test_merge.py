"""What was decided becomes data: with its provenance, without what the doctor refuses, and without who leaves."""

import csv
import json

import pytest

from taxon import cli
from taxon.feedback import review
from taxon.feedback.forgetting import forget
from taxon.training.dataset import tables
from taxon.training.errors import TrainingError
from taxon.training.rounds import merge as merging
from taxon.training.rounds import versions
from taxon.training.rounds.merge import Unchanged, Wanted, merge
from taxon.training.runs.folder import Run
from tests.training.rounds.conftest import accepted, picture, say

ALL = Wanted(recent_share=0.0)


@pytest.fixture
def basis(template):
    return versions.from_run(Run.open(template / "runs" / "first"))


def listed(folder):
    return tables.manifest(tables.read_table(folder / "samples.csv"))


def told(folder):
    with (folder / "provenance.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def test_what_was_accepted_joins_the_training_split_with_its_provenance(store, basis, tmp_path):
    case = accepted(store, tmp_path, 3)[0]
    rejected = say(store, picture(tmp_path, 60, 50), "light")
    review.decide(store, rejected, "reject", "rex")
    corrected = say(store, picture(tmp_path, 60, 51), "light")
    review.decide(store, corrected, "correct", "rex", ["dark"], "plainly")
    none = say(store, picture(tmp_path, 60, 52), "")
    review.decide(store, none, "accept", "rex")
    say(store, picture(tmp_path, 60, 53), "dark")
    made = merge(store, tmp_path / "versions", basis, ALL)
    assert made.about.counts == {"pending": 1, "rejected": 1, "none of the classes": 1, "merged": 4}
    found = listed(made.folder)
    before = len(basis.rows)
    assert (len(found.samples), found.faults, found.labels) == (before + 4, (), ("dark", "light"))
    assert {split: len(found.split(split)) for split in ("train", "val", "test")} == {
        "train": 20,
        "val": 12,
        "test": 60,
    }
    rows = {row["sha256"]: row for row in told(made.folder)}
    assert rows.keys() == {*(c.picture for c in review.cases(store, pending=False) if c.decision and c.decision.labels)}
    row = rows[case.picture]
    assert (row["label"], row["contributor"], row["version"]) == ("light", store.pseudonyms.of("ann"), "1")
    assert (row["decision"], row["reviewer"], row["license"], row["consent"]) == ("accept", "rex", "CC0-1.0", "train")
    assert row["request_id"] == case.answer.request_id
    assert (rows[corrected.picture]["label"], rows[corrected.picture]["why"]) == ("dark", "plainly")
    assert json.loads((made.folder / "doctor.json").read_text()) is not None
    again = merge(store, tmp_path / "versions", versions.from_version(tmp_path / "versions", 1), ALL)
    assert isinstance(again, Unchanged)
    assert again.counts == {"pending": 1, "rejected": 1, "none of the classes": 1}


def test_pictures_that_the_doctor_would_refuse_are_left_out(store, basis, template, tmp_path):
    accepted(store, tmp_path, 1)
    for name, label in (
        ("test/light/000.png", "light"),
        ("train/light/001.png", "light"),
        ("train/light/002.png", "dark"),
    ):
        case = say(store, (template / "data" / name).read_bytes(), label)
        review.decide(store, case, "accept", "rex")
    made = merge(store, tmp_path / "versions", basis, ALL)
    assert made.about.counts == {
        "left out: among the pictures to judge by": 1,
        "left out: in the data already": 1,
        "left out: in the data under another label": 1,
        "merged": 1,
    }
    assert len([*(made.folder / "said").iterdir()]) == 1
    assert len(told(made.folder)) == 1


def test_a_new_class_needs_pictures_and_gets_some_to_be_judged_by(store, basis, tmp_path):
    accepted(store, tmp_path, 12, "grey", proposed=("grey",))
    accepted(store, tmp_path, 1)
    few = merge(store, tmp_path / "few", basis, Wanted(recent_share=0.0, new_class_from=20))
    assert (few.about.new_labels, few.about.counts["of too small a new class"]) == ((), 12)
    made = merge(store, tmp_path / "versions", basis, Wanted(recent_share=0.0, new_class_from=10, judged_share=0.3))
    found = listed(made.folder)
    assert (made.about.new_labels, found.labels) == (("grey",), ("dark", "grey", "light"))
    assert all(found.counts(split)["grey"] > 0 for split in ("train", "val", "test"))


def test_what_is_kept_back_is_trained_on_by_the_next_version_and_the_last_word_counts(store, basis, tmp_path):
    cases = accepted(store, tmp_path, 20)
    first = merge(store, tmp_path / "versions", basis, Wanted(recent_share=0.5))
    recent = versions.recent(first.folder)
    assert 0 < len(recent) < 20
    assert all(file.is_file() and labels == ("light",) for file, labels in recent)
    assert len(recent) + len(listed(first.folder).samples) == len(basis.rows) + 20
    review.decide(store, cases[0], "reject", "rex")
    review.decide(store, cases[1], "correct", "rex", ["dark"])
    accepted(store, tmp_path, 1, start=100)
    second = merge(store, tmp_path / "versions", versions.from_version(tmp_path / "versions", 1), ALL)
    assert second.about.counts == {"rejected": 1, "withdrawn": 1, "relabelled": 1, "merged": 1}
    names = {sample.path.stem: sample.names(second.about.labels) for sample in listed(second.folder).samples}
    assert cases[0].picture not in names
    assert names[cases[1].picture] == ("dark",)
    assert {file.stem for file, _ in recent} - {cases[0].picture} <= names.keys()
    assert second.about.parent == 1


def test_who_leaves_leaves_every_version(store, basis, tmp_path):
    accepted(store, tmp_path, 4)
    gone = accepted(store, tmp_path, 4, start=50, who="eve")
    merge(store, tmp_path / "versions", basis, Wanted(recent_share=0.3))
    accepted(store, tmp_path, 1, start=100)
    merge(store, tmp_path / "versions", versions.from_version(tmp_path / "versions", 1), ALL)
    done = forget(store, "eve", [], None)
    assert done.exports == [str(tmp_path / "versions" / number) for number in ("1", "2")]
    for case in gone:
        assert not [*(tmp_path / "versions").rglob(f"{case.picture}.*")]
    for file in (tmp_path / "versions").rglob("*.csv"):
        assert store.pseudonyms.of("eve") not in file.read_text()
        assert not any(case.picture in file.read_text() for case in gone)
    assert not versions.from_version(tmp_path / "versions", 2).provenance[0][3].startswith(store.pseudonyms.of("eve"))


def test_what_a_killed_merge_has_left_is_found_by_who_leaves_and_goes_at_the_next(store, basis, tmp_path, monkeypatch):
    accepted(store, tmp_path, 3, who="eve")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versions, "write_about", killed)
        with pytest.raises(KeyboardInterrupt):
            merge(store, tmp_path / "versions", basis, ALL)
    assert versions.numbers(tmp_path / "versions") == []
    forget(store, "eve", [], None)
    assert [*(tmp_path / "versions" / "1").rglob("said/*.png")] == []
    accepted(store, tmp_path, 1, start=9)
    assert merge(store, tmp_path / "versions", basis, ALL).about.counts == {"merged": 1}


@pytest.mark.parametrize("aged", [False, True])
def test_who_leaves_during_a_merge_is_in_no_version(store, basis, tmp_path, monkeypatch, aged):
    """Also one whose pictures the store no longer has: only the version before tells of those."""
    accepted(store, tmp_path, 3)
    eve = accepted(store, tmp_path, 3, start=50, who="eve")
    first = merge(store, tmp_path / "versions", basis, ALL)
    pseudonym = store.pseudonyms.of("eve")
    if aged:
        store.forget(pseudonym)
    accepted(store, tmp_path, 2, start=100)
    diagnose = merging.diagnose

    def meanwhile(labelled):
        forget(store, "eve", [], None)
        return diagnose(labelled)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "diagnose", meanwhile)
        with pytest.raises(TrainingError, match="somebody has left"):
            merge(store, tmp_path / "versions", versions.from_version(tmp_path / "versions", 1), ALL)
    assert store.exports() == [first.folder]
    again = merge(store, tmp_path / "versions", versions.from_version(tmp_path / "versions", 1), ALL)
    assert again.about.counts == {"merged": 2}
    for file in (tmp_path / "versions").rglob("*.csv"):
        assert pseudonym not in file.read_text()
        assert not any(case.picture in file.read_text() for case in eve)


def test_what_is_written_while_somebody_leaves_leaves_too(store, basis, tmp_path, monkeypatch):
    """By a merge that looked at the store just before."""
    accepted(store, tmp_path, 3)
    accepted(store, tmp_path, 3, start=50, who="eve")
    folder = merge(store, tmp_path / "versions", basis, ALL).folder
    lists = {file: file.read_text() for file in folder.glob("*.csv")}
    forgotten = store.forget

    def written_meanwhile(pseudonym):
        for file, text in lists.items():
            file.write_text(text)
        return forgotten(pseudonym)

    monkeypatch.setattr(store, "forget", written_meanwhile)
    assert forget(store, "eve", [], None).exports == [str(folder)]
    assert all(store.pseudonyms.of("eve") not in file.read_text() for file in lists)
    assert len(listed(folder).samples) == len(basis.rows) + 3


def test_folders_of_others_are_left_alone(store, basis, tmp_path):
    """Classes that are numbers, say."""
    (tmp_path / "versions" / "7").mkdir(parents=True)
    (tmp_path / "versions" / "7" / "seven.png").touch()
    accepted(store, tmp_path, 1)
    assert merge(store, tmp_path / "versions", basis, ALL).about.version == 8
    assert (tmp_path / "versions" / "7" / "seven.png").exists()


def test_labels_of_mixed_types_are_refused_and_leave_no_version(store, basis, tmp_path):
    accepted(store, tmp_path, 20, "7", proposed=("7",))
    with pytest.raises(TrainingError, match="mixed types"):
        merge(store, tmp_path / "versions", basis, ALL)
    assert versions.numbers(tmp_path / "versions") == []


def test_the_command_merges(store, template, tmp_path, capsys):
    accepted(store, tmp_path, 2)
    words = ["data", "merge", "--store", str(store.place), "--out", str(tmp_path / "versions"), "--recent-share", "0"]
    assert cli.main(words) == 2
    assert "give --base" in capsys.readouterr().err
    assert cli.main([*words, "--base", str(template / "data")]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["version"], first["counts"]) == (1, {"merged": 2})
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["version"] is None
