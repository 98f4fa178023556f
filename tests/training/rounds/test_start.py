"""Where training goes on from: the same answers for what was known, a place for what is new."""

import shutil
from dataclasses import replace

import pytest
import torch

from taxon.training.errors import TrainingError
from taxon.training.network import model
from taxon.training.rounds import start
from taxon.training.runs.checkpoint import Checkpoint, run_behind
from taxon.training.runs.folder import Run


@pytest.fixture
def before(template):
    return Run.open(template / "runs" / "first").checkpoint()


def logits(checkpoint):
    network = checkpoint.build_model()
    torch.manual_seed(5)
    with torch.inference_mode():
        return network(torch.rand(4, 3, 8, 8))


def test_rows_are_kept_by_name(before):
    after = start.extended(before, ("blue", "dark", "grey", "light"), seed=0)
    assert torch.equal(logits(after)[:, [1, 3]], logits(before))
    assert logits(after).shape == (4, 4)
    swapped = start.extended(before, ("light", "dark"), seed=0)
    assert torch.equal(logits(swapped), logits(before).flip(1))


def test_a_head_of_several_layers_is_extended_too_and_read_again(before, tmp_path):
    network = model.load("small_cnn", 2, head="mlp:16").network
    wide = replace(before, head="mlp:16", state=network.state_dict())
    after = start.extended(wide, ("dark", "grey", "light"), seed=0)
    assert torch.equal(logits(after)[:, [0, 2]], logits(wide))
    after.save(tmp_path / "start.pt")
    loaded = model.load("small_cnn", 3, weights=str(tmp_path / "start.pt"), head="mlp:16")
    assert loaded.dropped_head == ()
    assert torch.equal(loaded.network.eval()(torch.ones(1, 3, 8, 8)), after.build_model()(torch.ones(1, 3, 8, 8)))


def test_a_class_that_is_gone_is_refused(before):
    with pytest.raises(TrainingError, match=r"no longer has the classes \['light'\]"):
        start.extended(before, ("dark", "grey"), seed=0)


def test_a_run_knows_whose_weights_it_went_on_from(before, tmp_path):
    before.save(tmp_path / "w.pt")
    assert run_behind(str(tmp_path / "w.pt")) == (before.run_id,)
    torch.save({"state": dict(before.state)}, tmp_path / "other.pt")
    assert run_behind(str(tmp_path / "other.pt")) == run_behind("none") == run_behind("DEFAULT") == ()


def test_the_recipe_goes_on_with_the_same_preprocessing(template, tmp_path):
    run = Run.open(template / "runs" / "first")
    run.checkpoint().save(tmp_path / "w.pt")
    recipe = start.recipe_for(run, tmp_path / "w.pt", template / "data", {"optim": {"epochs": 7}})
    assert (recipe.model.mode, recipe.optim.epochs, recipe.data.image_size) == ("full", 7, 8)
    with pytest.raises(TrainingError, match="prepared otherwise"):
        start.recipe_for(run, tmp_path / "w.pt", template / "data", {"data": {"image_size": 16}})


def test_a_round_does_not_spend_privacy_that_nobody_counts(template, tmp_path):
    shutil.copytree(template / "runs" / "first", tmp_path / "noisy")
    recipe = (tmp_path / "noisy/recipe.toml").read_text()
    (tmp_path / "noisy/recipe.toml").write_text(recipe.replace("noise = 0.0", "noise = 1.0"))
    with pytest.raises(TrainingError, match="was trained with --dp-noise"):
        start.recipe_for(Run.open(tmp_path / "noisy"), tmp_path / "w.pt", template / "data", {})


def test_what_is_served_is_found_or_named(template, tmp_path):
    assert start.production(template / "models", "shades", [template / "runs"]).version == 1
    with pytest.raises(TrainingError, match="training cannot go on from it"):
        start.production(template / "models", "shades", [tmp_path])
    with pytest.raises(TrainingError, match="has no model"):
        start.production(template / "models", "other", [template / "runs"])


def test_checkpoints_stay_what_they_were(before):
    assert isinstance(before, Checkpoint)
    kept = {key: value.clone() for key, value in before.state.items()}
    start.extended(before, ("blue", "dark", "light"), seed=0)
    assert all(torch.equal(kept[key], value) for key, value in before.state.items())
