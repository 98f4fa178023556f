import dataclasses
import json
import shutil

import pytest

from taxon.bundle import default_history, store, version_labels
from taxon.training.commands import catalog, promote
from taxon.training.exporting import bundling
from taxon.training.exporting.bundling import Settings
from taxon.training.releases import promotions
from tests.training.toy_classifier import LABELS, ToyNetwork, make_candidate

PLAIN = Settings(calibration=False)


def call(repository, version, *more):
    held_out = repository.parent / "held-out"
    return promote.main(["toy", str(version), "--models", str(repository), "--data", str(held_out), *more])


def stable(repository):
    return version_labels.read(repository, "toy").get("stable")


def test_a_worse_version_is_refused_with_figures(repository, capsys):
    assert call(repository, 1) == 0
    assert call(repository, 2) == 1
    assert stable(repository) == 1
    captured = capsys.readouterr()
    assert "95 % interval" in captured.err
    assert "recall of" in captured.out


def test_a_version_as_good_is_accepted_and_a_better_one_too(repository):
    assert call(repository, 1) == 0
    assert call(repository, 3) == 0
    assert call(repository, 2, "--force", "to test the way back") == 0
    assert call(repository, 3) == 0
    assert stable(repository) == 3


def test_force_is_recorded_with_its_reason_and_the_figures(repository):
    call(repository, 1)
    assert call(repository, 2, "--force", "the other breaks on Tuesdays") == 0
    assert stable(repository) == 2
    last = default_history.read(repository, "toy")[-1]
    assert (last["from"], last["to"], last["reason"]) == (1, 2, "the other breaks on Tuesdays")
    assert last["comparison"]["difference"] < 0


def test_an_allowed_loss_is_allowed(repository):
    call(repository, 1)
    assert call(repository, 2, "--allowed-loss", "1.0") == 0


def test_a_version_that_gains_overall_but_fails_one_contributor_is_refused(repository, tmp_path, capsys):
    """3 answers green where 2 answers blue; Ann says that it is green, and Bob that it is blue."""
    version_labels.write(repository, "toy", version_labels.STABLE, 2)
    rows = ["path,label,contributor"]
    for label, who in (("green", "ann"), ("green", "ann"), ("blue", "bob")):
        folder = shutil.copytree(repository.parent / "held-out" / "green", tmp_path / "new" / str(len(rows)))
        rows += [f"{folder.name}/{file.name},{label},{who}" for file in sorted(folder.iterdir())]
    (tmp_path / "new" / "list.csv").write_text("\n".join(rows))
    words = ["toy", "3", "--models", str(repository), "--data", str(tmp_path / "new" / "list.csv")]
    assert promote.main(words) == 1
    refused = capsys.readouterr().err
    assert "on the slice 'contributor bob', 18 pictures, its accuracy is 0.00%, the default's 100.00%" in refused
    assert "contributor ann" not in refused
    assert stable(repository) == 2
    assert promote.main([*words, "--force", "Bob is wrong"]) == 0
    record = default_history.read(repository, "toy")[-1]["comparison"]
    assert record["difference"] > 0
    assert (record["slices"][0]["title"], record["slices"][0]["lost"]) == ("source 37", 18)


def test_rolling_back_is_one_command_and_goes_back_step_by_step(repository, capsys):
    for version in (1, 3):
        call(repository, version)
    call(repository, 2, "--force", "oops")
    for expected in (3, 1, 3):  # without a label the latest, 3, was the default before the first promotion
        assert promote.rollback_main(["toy", "--models", str(repository)]) == 0
        assert stable(repository) == expected
    assert promote.rollback_main(["toy", "--models", str(repository)]) == 2


def test_without_a_promotion_there_is_nothing_to_roll_back(repository, capsys):
    assert promote.rollback_main(["toy", "--models", str(repository)]) == 2
    assert "no earlier default" in capsys.readouterr().err


def test_the_first_promotion_compares_with_the_version_before(repository):
    """Without a label the latest version answers: promoting 2 must not be a way round the comparison."""
    assert promotions.current_version(repository, "toy", 2) == 1
    assert call(repository, 2) == 1
    assert stable(repository) is None


def test_of_a_folder_with_splits_the_test_pictures_judge(repository, capsys):
    """Both versions may have been trained on the others."""
    held_out = repository.parent / "held-out"
    for number, file in enumerate(sorted(held_out.glob("*/*"))):
        split = held_out.parent / "all" / ("train", "val", "test")[number % 3] / file.parent.name
        split.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, split)
    words = ["toy", "1", "--models", str(repository), "--data", str(held_out.parent / "all")]
    assert promote.main(words) == 0
    captured = capsys.readouterr()
    count = len([*(held_out.parent / "all" / "test").rglob("*.*")])
    assert f"difference on {count} pictures" in captured.out
    assert "measured on the test split" in captured.err
    for split in ("test", "val"):
        shutil.rmtree(held_out.parent / "all" / split)
    words[1] = "3"
    assert promote.main(words) == 2
    assert "has only a training split" in capsys.readouterr().err


def test_a_version_that_is_not_there(repository, capsys):
    assert call(repository, 9) == 2
    assert "has no version" in capsys.readouterr().err


def test_a_version_that_cannot_be(repository, capsys):
    with pytest.raises(SystemExit):
        call(repository, 0)
    assert "is not a whole number from 1" in capsys.readouterr().err


def test_promoting_the_default_is_an_error(repository, capsys):
    call(repository, 1)
    assert call(repository, 1) == 2
    assert "default already" in capsys.readouterr().err


def test_a_damaged_candidate_is_refused(repository, capsys):
    (repository / "toy" / "3" / "model.onnx").write_bytes(b"torn")
    assert call(repository, 3) == 2
    assert "sha256" in capsys.readouterr().err


def test_a_version_that_lost_a_label_is_refused(repository, tmp_path, capsys):
    candidate = make_candidate(tmp_path / "two", network=ToyNetwork(2), expected_accuracy=None)
    candidate = dataclasses.replace(candidate, labels=LABELS[:2], answers=tuple((LABELS[i % 2],) for i in range(24)))
    bundling.publish(candidate, repository, "toy", PLAIN)
    assert call(repository, 4) == 2
    assert "lacks the labels ['red']" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../models/toy", "../../copy/models/toy", "toy/../toy"])
def test_a_path_is_no_name(repository, capsys, name):
    """Each leads to a real model, by a way that a name must not take."""
    call(repository, 1)
    models = ["--models", str(repository)]
    held_out = ["--data", str(repository.parent / "held-out")]
    assert promote.main([name, "3", *models, *held_out]) == 2
    assert promote.rollback_main([name, *models]) == 2
    assert catalog.label_main([name, "3", "candidate", *models]) == 2
    assert version_labels.read(repository, "toy") == {"stable": 1}
    assert len(default_history.read(repository, "toy")) == 1


def test_the_label_stable_is_not_set_by_hand(repository, capsys):
    assert catalog.label_main(["toy", "2", "stable", "--models", str(repository)]) == 2
    assert "taxon promote" in capsys.readouterr().err
    assert store.versions(repository, "toy") == [1, 2, 3]


def test_a_version_that_never_answers_unknown_is_told(repository, capsys):
    """No figure of the comparison shows it."""
    file = repository / "toy/1/manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["thresholds"]["unknown"] is None
    file.write_text(json.dumps(manifest | {"thresholds": manifest["thresholds"] | {"unknown": 0.5}}))
    call(repository, 1)
    assert "unknown" not in capsys.readouterr().err
    assert call(repository, 3) == 0
    assert "version 3 never answers unknown, as version 1 does" in capsys.readouterr().err


def damage(repository, version):
    (repository / "toy" / str(version) / "model.onnx").write_bytes(b"torn")


def delete(repository, version):
    shutil.rmtree(repository / "toy" / str(version))


@pytest.mark.parametrize(("harm", "complaint"), [(damage, "sha256"), (delete, "has no version 1")])
def test_a_default_that_cannot_be_read_is_replaced_by_force_only(repository, capsys, harm, complaint):
    """Nothing can be compared, so a person must say that the new one is good; the record says so."""
    call(repository, 1)
    harm(repository, 1)
    assert call(repository, 3) == 2
    refused = capsys.readouterr().err
    assert complaint in refused
    assert "--force REASON" in refused
    assert stable(repository) == 1
    assert call(repository, 3, "--force", "the disk of 1 broke") == 0
    said = capsys.readouterr().err
    assert said.startswith("taxon promote: compared with nothing: ")
    assert complaint in said
    assert stable(repository) == 3
    last = default_history.read(repository, "toy")[-1]
    assert (last["from"], last["to"], last["reason"], last["comparison"]) == (1, 3, "the disk of 1 broke", None)


@pytest.mark.parametrize("harm", [damage, delete])
def test_rolling_back_to_what_cannot_serve_says_the_way_out(repository, capsys, harm):
    call(repository, 1)
    call(repository, 3)
    harm(repository, 1)
    assert promote.rollback_main(["toy", "--models", str(repository)]) == 2
    assert "`taxon promote` another one" in capsys.readouterr().err
    assert stable(repository) == 3


def test_a_damaged_default_does_not_stand_in_the_way_of_rolling_back(repository):
    call(repository, 1)
    call(repository, 3)
    damage(repository, 3)
    assert promote.rollback_main(["toy", "--models", str(repository)]) == 0
    assert stable(repository) == 1
