"""Every number of every command has a range, and what lies outside is refused at once, before any file is read."""

import pytest

from taxon import cli

CALLS = {
    "classify": ["x.jpg"],
    "health": [],
    "export": ["run", "--models", "m"],
    "fuse": ["a", "b", "--method", "soup", "--models", "m", "--name", "n"],
    "import-onnx": [
        "x",
        "--labels",
        "x",
        "--pixels",
        "x",
        "--data",
        "x",
        "--gives",
        "logits",
        "--models",
        "m",
        "--name",
        "n",
    ],
    "promote": ["name", "1", "--models", "m", "--data", "d"],
    "data": ["split", "d", "--out", "o.csv"],
}


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("classify", "--concurrency", "0"),
        ("classify", "--concurrency", "-1"),
        ("classify", "--timeout-s", "0"),
        ("classify", "--timeout-s", "nan"),
        ("classify", "--timeout-s", "1e30"),
        ("classify", "--max-results", "-1"),
        ("classify", "--max-results", "99999999999"),
        ("classify", "--min-score", "1.5"),
        ("health", "--timeout-s", "-1"),
        ("health", "--wait-s", "inf"),
        ("export", "--image-size", "0"),
        ("export", "--std", "0"),
        ("export", "--mean", "nan"),
        ("export", "--tolerance", "-1"),
        ("export", "--budget", "2"),
        ("export", "--unknown-coverage", "0"),
        ("export", "--expected-accuracy", "93"),
        ("fuse", "--tolerance", "nan"),
        ("import-onnx", "--std", "-0.2"),
        ("import-onnx", "--expected-accuracy", "-1"),
        ("promote", "--allowed-loss", "-0.1"),
        ("data", "--val-fraction", "1"),
        ("data", "--seed", "-1"),
        ("data", "--seed", "18446744073709551616"),
    ],
)
def test_numbers_out_of_range_are_refused(capsys, command, option, value):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *CALLS[command], f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: '{value}' is not a " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["promote name", "label name", "sign name"])
@pytest.mark.parametrize("version", ["0", "1.5", "9" * 30])
def test_versions_are_whole_numbers_from_one(capsys, command, version):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), version, "stable", "--models", "m"])
    assert "is not a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--lr inf",
        "--lr 0",
        "--weight-decay nan",
        "--seed -1",
        "--seed 99999999999999999999",
        "--batch-size 0",
        "--accumulate 0",
        "--threads 99999999999",
        "--workers -1",
        "--save-seconds nan",
        "--val-fraction 1.0",
        "--evaluate-every 0",
        "--epochs 99999999999",
        "--batch-size 99999999999",
        "--pad 5000",
        "--lr 1e30",
        "--mixup -1",
        "--mixup 1e300",
        "--distill-temperature 1e-30",
        "--early-stop -1",
        "--set optim.epochs=0",
        "--set data.val_fraction=nan",
        "--set optim.batch_size=1.5",
        "--set machine.cache_gib=inf",
    ],
)
def test_numbers_of_a_training_out_of_range_are_refused(capsys, words):
    assert cli.main(["train", *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("taxon train: ")
    assert error.count("\n") == 1


def test_numbers_of_a_recipe_have_the_same_ranges(tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[optim]\nepochs = 0\nlr = inf\n[data]\nval_fraction = 1.0\n")
    assert cli.main(["train", "--recipe", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert all(key in error for key in ("optim.epochs", "optim.lr", "data.val_fraction"))
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "classify", "export"])
def test_words_that_are_not_utf8_are_refused(capsys, command):
    assert cli.main([command, "caf\udce9"]) == 2
    assert "caf\\xe9 is not UTF-8" in capsys.readouterr().err
