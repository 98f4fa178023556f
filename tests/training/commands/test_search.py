import json
import sys

import pytest

from taxon.training.commands.search import main
from taxon.training.commands.train import main as train
from tests.training.folders import write_folder


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures")
    (tmp_path / "recipe.toml").write_text(
        '[data]\nsource = "pictures"\n[model]\nname = "small_cnn"\n[optim]\nepochs = 2\nbatch_size = 8\nlr = 1e-6\n'
    )
    return "recipe.toml"


def test_without_optuna_it_says_what_to_install(recipe, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main([recipe]) == 2
    assert "pip install -e '.[search]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_ends_in_a_recipe_that_trains_and_a_page(recipe, tmp_path, capsys):
    pytest.importorskip("optuna")
    (tmp_path / "space.toml").write_text("[optim]\nlr = [1e-6, 0.003]\n")
    assert main([recipe, "--space", "space.toml", "--trials", "4", "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "trial 0: complete" in printed
    assert "page: searches/recipe/index.html" in printed
    folder = tmp_path / "searches" / "recipe"
    found = json.loads((folder / "result.json").read_text())
    assert len(found["trials"]) == 4
    assert found["trials"][0]["values"] == {"optim.lr": 1e-6}
    assert found["belief"]["picture_count"] == 8  # the validation split, which no trial saw
    assert found["verdict"] in (folder / "index.html").read_text()
    assert not [*folder.glob("trials/*/*.pt")]
    assert train(["--recipe", str(folder / "result.toml"), "--out", "run", "--no-report"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.toml"], "there is no recipe nowhere.toml"),
        (["recipe.toml", "--set", "optim.lrr=1"], "did you mean 'optim.lr'"),
        (["recipe.toml", "--data", "nowhere"], "there is no data 'nowhere'"),
        (["recipe.toml", "--space", "nowhere.toml"], "there is no recipe nowhere.toml"),
        (["recipe.toml", "--set", "data.validate_on=train"], "leaves the validation split alone"),
        (
            ["recipe.toml", "--set", "privacy.noise=1.0", "--set", "model.mode=head", "--set", "model.weights=w.pt"],
            "search without --dp-noise",
        ),
        (["recipe.toml", "--set", "data.validate_on=test"], "no test split"),
    ],
)
def test_bad_input_is_named(recipe, words, message, capsys):
    pytest.importorskip("optuna")
    assert main(words) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert "trial" not in found.out  # refused before anything is trained
