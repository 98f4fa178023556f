import json
from types import SimpleNamespace

import numpy as np
import pytest

from taxon.training.advice import advise as line
from taxon.training.advice import cost, curve
from taxon.training.advice.candidates import FLOOR
from taxon.training.advice.cost import Cost
from taxon.training.commands.advise import main
from taxon.training.commands.train import main as train
from taxon.training.exporting import graph
from tests.training.folders import write_folder


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "pictures", 24)


@pytest.fixture
def measured_here(monkeypatch):
    """Graphs are written the quick way and run in this process, where a new one would import torch for seconds."""
    monkeypatch.setattr(cost, "_elsewhere", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(cost, "LADDER", graph.LADDER[1:2])
    monkeypatch.setattr(curve, "RESAMPLES", 20)


@pytest.mark.slow
def test_pictures_become_a_table_a_curve_and_a_page(pictures, measured_here, capsys):
    words = "small_cnn=none,cnn2=none,small_cnn"
    assert main(["--data", "pictures", "--candidates", words, "--folds", "3", "--latency-ms", "1000"]) == 1
    printed = capsys.readouterr().out
    assert "small_cnn is left out: small_cnn has no published weights" in printed
    assert "Only random weights were at hand" in printed
    found = json.loads((pictures.parent / "advice" / "advice.json").read_text())
    assert {one["name"] for one in found["candidates"]} == {"small_cnn", "cnn2"}
    assert all(one["latency_ms"]["1"] > 0 and one["file_mib"] > 0 for one in found["candidates"])
    assert max(one["accuracy"] for one in found["candidates"]) > 0.9  # dark and light: any features tell them
    assert found["picture_count"] == 48
    assert [part["label"] for part in found["classes"]]
    page = (pictures.parent / "advice" / "index.html").read_text()
    assert "cnn2" in page
    assert page.count("data:image/png;base64,") == 2


def test_fewer_pictures_can_be_looked_at(pictures, monkeypatch, capsys):
    fixed = Cost("CPUExecutionProvider", "fp32", {1: 2.0, 8: 9.0}, {1: 2.0, 8: 9.0}, 1.0, 1.0)
    monkeypatch.setattr(line, "write", lambda *_: "fp32")
    monkeypatch.setattr(line, "measure", lambda *_: fixed)
    monkeypatch.setattr(line, "measure_again", lambda _, costs: costs)
    monkeypatch.setattr(curve, "RESAMPLES", 20)
    assert main(["--data", "pictures", "--candidates", "small_cnn=none", "--folds", "2", "--pictures", "20"]) == 1
    found = json.loads((pictures.parent / "advice" / "advice.json").read_text())
    assert (found["picture_count"], found["total_count"]) == (22, 48)  # each class and split rounded up
    assert capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "there is no data 'nowhere'"),
        (["--data", "pictures", "--folds", "30"], "fewer than --folds 30"),
        (["--data", "pictures", "--candidates", "resnet81"], "no candidate can be judged: resnet81: there is no model"),
        (["--data", "table.csv"], "is a table of numbers"),
        (["--data", "several.csv"], "has several labels a picture"),
    ],
)
def test_bad_input_is_named(pictures, words, message, capsys):
    (pictures.parent / "table.csv").write_text("a,b,label\n" + "".join(f"{n},{n},x{n % 2}\n" for n in range(20)))
    (pictures.parent / "several.csv").write_text("path,label\npictures/dark/000.png,a|b\npictures/light/000.png,a\n")
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_without_weights_it_says_so_before_it_looks_at_anything(pictures, monkeypatch, capsys):
    monkeypatch.setattr(line, "default_words", lambda: [FLOOR])
    monkeypatch.setattr(line, "open_candidate", lambda *_: pytest.fail("a random network alone is no choice"))
    assert main(["--data", "pictures"]) == 2
    assert "no pretrained weights are in the caches of this machine" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--data", "pictures", "--candidates", " , "])
    assert "--candidates: names none" in capsys.readouterr().err


def test_features_that_are_no_numbers_leave_a_candidate_out(pictures, monkeypatch, capsys):
    nothing = SimpleNamespace(inputs=np.full((2, 3), np.nan, dtype=np.float32))
    monkeypatch.setattr(line.features, "of_splits", lambda *_: (nothing, nothing))
    assert main(["--data", "pictures", "--candidates", "small_cnn=none"]) == 2
    assert "what reaches its head is no number" in capsys.readouterr().err


def test_a_run_that_knows_the_pictures_is_not_judged_by_them(pictures, capsys):
    assert train(["--data", "pictures", "--model", "small_cnn", "--epochs", "1", "--no-report", "--out", "run"]) == 0
    for word in ("run", "run/best.pt"):
        assert main(["--data", "pictures", "--candidates", word]) == 2
        assert "it was trained on 38 of these pictures: they cannot judge it" in capsys.readouterr().err
