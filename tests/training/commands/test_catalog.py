import io
import json

from rich.console import Console

from taxon.bundle import traffic, version_labels
from taxon.bundle.traffic import Canary, Shadow
from taxon.training.commands import catalog
from taxon.training.releases.listing import entries


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


def test_80_columns_hold_every_heading_and_every_value(repository):
    """As many as a terminal has, and as rich takes where there is none."""
    found = entries(repository, "toy")[0]
    name, run_id = "a-model-with-a-name-of-40-characters-o.o", "20261126T205512-4fd2a1c9"
    row = found | {"name": name, "run_id": run_id, "labels": ["candidate"], "trials": {"canary": 0.05}}
    console = Console(file=io.StringIO(), width=80)
    console.print(catalog.to_table([row]))
    lines = console.file.getvalue().splitlines()
    headings = ["model", "version", "labels", "accuracy", "calibration", "unknown", "below", "variants", "from"]
    assert sorted(" ".join(lines[:2]).split()) == sorted(headings)
    columns = {word: lines[1].index(word) for word in ("model", "version", "from")}
    assert "".join(line[: columns["version"]].strip() for line in lines[2:]) == name
    assert "".join(line[columns["from"] :].strip() for line in lines[2:]) == run_id
    assert any("canary 0.05" in line for line in lines)


def test_a_model_that_is_not_there_is_said(repository, capsys):
    assert catalog.main(["--models", str(repository), "--name", "tyo"]) == 2
    assert "has no model tyo" in capsys.readouterr().err


def test_models_names_damaged_bundles_and_goes_on(repository, capsys):
    (repository / "toy" / "2" / "golden" / "00.png").unlink()
    assert catalog.main(["--models", str(repository)]) == 1
    assert "\ntoy/2: " in capsys.readouterr().out
    assert catalog.main(["--models", str(repository), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["error"] is None for row in rows] == [True, False, True]
