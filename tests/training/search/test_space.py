import pytest

pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.plan import resolved
from taxon.training.search.space import default_space, read_space, values_of, with_values

SMALL = Recipe.model_validate({"model": {"name": "small_cnn"}})


def read(tmp_path, text, base=SMALL):
    (tmp_path / "space.toml").write_text(text)
    return read_space(tmp_path / "space.toml", base)


def test_lists_are_choices_and_ranges_have_the_kind_of_their_option(tmp_path):
    text = """
    [optim]
    lr = {low = 1e-4, high = 1, log = true}
    batch_size = {low = 16, high = 64, step = 16}
    optimizer = ["sgd", "adamw"]
    """
    assert read(tmp_path, text) == {
        "optim.lr": FloatDistribution(1e-4, 1.0, log=True),
        "optim.batch_size": IntDistribution(16, 64, step=16),
        "optim.optimizer": CategoricalDistribution(["sgd", "adamw"]),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlrr = [1.0, 2.0]", "there is no option optim.lrr: did you mean 'optim.lr'"),
        ("[optm]\nlr = [1.0, 2.0]", "there is no option optm: did you mean 'optim'"),
        ("lr = [1.0, 2.0]", "lr outside a section"),
        ("[optim]\nlr = 1.0", "must be a list of choices, or a range"),
        ("[optim]\nlr = [1.0]", "must list two values or more"),
        ("[optim]\nlr = [[1.0], [2.0]]", "must list two values or more"),
        ("[optim]\nlr = {low = 1.0}", "must be a list of choices, or a range"),
        ("[optim]\nlr = {low = 1.0, high = 2.0, logg = true}", "has 'logg': did you mean 'log'"),
        ("[optim]\nlr = {low = 0.0, high = 2.0}", "optim.lr = 0.0: input should be greater than 0"),
        ("[optim]\nlr = {low = 2.0, high = 1.0}", "the range of optim.lr"),
        ("[optim]\nloss = {low = 'mse', high = 'bce'}", "optim.loss is no number"),
        ("[optim]\nloss = ['mse', 'msee']", "optim.loss = 'msee'"),
        ("[model]\nmode = ['scratch', 'head']", "mode head needs pretrained weights"),
        ("[run]\nseed = [0, 1]", "varies run: the seeds are the search's own"),
        ("[data]\nval_fraction = [0.1, 0.2]", "varies data"),
        ("", "is empty"),
        ("[optim", "cannot be read"),
    ],
)
def test_a_space_that_cannot_be_is_refused(tmp_path, text, message):
    with pytest.raises(TrainingError, match=message.replace("[", r"\[")):
        read(tmp_path, text)


def test_the_default_space_holds_the_recipe_and_fits_its_mode():
    for name, mode, more in (
        ("small_cnn", "scratch", {"optim.ema", "augment.policy", "augment.pad"}),
        ("mlp", "scratch", {"optim.ema"}),
        ("resnet18", "head", set()),
        ("resnet18", "lp-ft", {"optim.head_lr", "optim.layer_decay", "augment.policy", "augment.scale"}),
        ("resnet18", "full", {"optim.layer_decay", "augment.policy", "augment.scale"}),
    ):
        base = resolved(Recipe.model_validate({"model": {"name": name, "mode": mode}}))
        space = default_space(base)
        assert more <= space.keys()
        assert ("augment.policy" in space) == ("augment.policy" in more)
        assert values_of(base, space).keys() == space.keys()
        for name, distribution in space.items():
            for end in (getattr(distribution, "low", None), getattr(distribution, "high", None)):
                assert end is None or resolved(with_values(base, {name: end}))


def test_what_lies_outside_a_space_is_not_of_it(tmp_path):
    space = read(
        tmp_path, "[optim]\nlr = {low = 1.0, high = 2.0}\nloss = ['mse', 'bce']\nepochs = {low = 2, high = 20}"
    )
    assert values_of(resolved(SMALL), space) == {"optim.epochs": 10}
