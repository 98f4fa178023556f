import json

from taxon.bundle import traffic, version_labels
from taxon.bundle.traffic import Canary, Shadow
from taxon.training.commands import catalog


def test_models_lists_versions_with_labels_and_lineage(repository, capsys):
    version_labels.write(repository, "toy", "stable", 1)
    assert catalog.label_main(["toy", "3", "candidate", "--models", str(repository)]) == 0
    capsys.readouterr()
    assert catalog.main(["--models", str(repository), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["labels"]) for row in rows] == [(3, ["candidate"]), (2, []), (1, ["stable"])]
    assert rows[0]["run_id"] == "run-1"
    assert catalog.main(["--models", str(repository)]) == 0
    assert "candidate" in capsys.readouterr().out


def test_models_lists_versions_on_trial(repository, capsys):
    version_labels.write(repository, "toy", "stable", 1)
    trials = {"canary": Canary(version=2, share=0.05), "shadow": Shadow(version=3, share=1.0)}
    traffic.change(repository, "toy", lambda before: before.changed(**trials))
    assert catalog.main(["--models", str(repository), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["trials"] for row in rows] == [{"shadow": 1.0}, {"canary": 0.05}, {}]
    assert catalog.main(["--models", str(repository)]) == 0
    assert "canary 0.05" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_said(repository, capsys):
    assert catalog.main(["--models", str(repository), "--name", "tyo"]) == 2
    assert "has no model tyo" in capsys.readouterr().err


def test_models_names_damaged_bundles_and_goes_on(repository, capsys):
    (repository / "toy" / "2" / "golden" / "00.png").unlink()
    assert catalog.main(["--models", str(repository), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["error"] is None for row in rows] == [True, False, True]
