import argparse

import pytest

from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.plan import resolved


def parse(*words: str) -> Recipe:
    return flags.parse(list(words), argparse.ArgumentParser()).recipe


def test_every_option_has_a_help_text():
    parser = argparse.ArgumentParser()
    flags.parse([], parser)
    assert [action.dest for action in parser._actions if not action.help] == []
    assert all(field.description for _, _, field in flags.options())


def test_no_two_options_have_one_flag():
    """argparse would refuse; this names the reason."""
    names = [key for section, key, _ in flags.options() if f"{section}.{key}" not in flags.SHORT]
    assert len(set(names)) == len(names)


def test_flags_go_over_set_over_the_recipe_over_defaults(tmp_path):
    (tmp_path / "r.toml").write_text("[optim]\nlr = 0.1\nepochs = 7\nmomentum = 0.5\n")
    words = ["--recipe", str(tmp_path / "r.toml"), "--set", "optim.lr=0.2", "--set", "optim.epochs=8", "--lr", "0.3"]
    found = parse(*words).optim
    assert (found.lr, found.epochs, found.momentum, found.batch_size) == (0.3, 8, 0.5, 32)


def test_set_takes_words_and_lists():
    found = parse("--set", "model.mode=head", "--set", 'model.frozen=["a","b"]').model
    assert (found.mode, found.frozen) == ("head", ("a", "b"))


def test_toml_gives_the_same_recipe_back(tmp_path):
    recipe = resolved(parse("--data", "x", "--weights", "none", "--reset", "a", "b", "--image-size", "9"))
    (tmp_path / "r.toml").write_text(flags.to_toml(recipe))
    assert flags.checked(flags.read_toml(str(tmp_path / "r.toml"))) == recipe


@pytest.mark.parametrize("text", ["[optim\n", "lr = 1\n", "[optim]\nlr = 'fast'\n", "[optim]\nepochz = 1\n"])
def test_recipes_with_faults_are_refused(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(TrainingError):
        parse("--recipe", str(tmp_path / "r.toml"))


@pytest.mark.parametrize("name", flags.recipe_names())
def test_recipes_of_the_package_are_valid_and_say_what_they_give(name):
    resolved(parse("--recipe", name))
    header = (flags.RECIPES / f"{name}.toml").read_text().splitlines()
    assert header[0].startswith("# ")
    for word in ("# command ", "# hardware ", "# expected "):
        assert any(line.startswith(word) for line in header), word
