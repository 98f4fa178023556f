import argparse
import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from taxon.training.dataset import data
from taxon.training.exporting.options import model_name
from taxon.training.loop.progress import Display
from taxon.training.runs.checkpoint import Checkpoint
from tests.training.folders import write_folder

LINE = {"train_loss": 1.0, "val_loss": 0.5, "accuracy": 0.75, "macro_f1": 0.7, "seconds": 2.0}


def epoch(display: Display) -> None:
    display.epoch_begins("epoch 1/2 full", 3)
    for _ in range(3):
        display.step_done(0.123)
    display.epoch_done("epoch 1/2 full", LINE, best=True)


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    epoch(Display(Console(file=stream, force_terminal=terminal, width=120)))
    return stream.getvalue()


def test_a_terminal_gets_a_bar_and_a_line():
    text = shown(terminal=True)
    assert "3/3 steps" in text
    assert "\x1b[" in text
    assert "accuracy 75.00%" in text


def test_a_file_gets_plain_lines():
    text = shown(terminal=False)
    assert text.splitlines() == [
        "epoch 1/2 full      train loss 1.0000  val loss 0.5000  accuracy 75.00%  macro F1 0.7000  2.0 s  best"
    ]


def test_an_epoch_that_was_not_evaluated_has_its_training_loss():
    stream = io.StringIO()
    line = {"train_loss": 1.0, "seconds": 2.0}
    Display(Console(file=stream, width=120)).epoch_done("epoch 1/2 full", line, best=False)
    assert stream.getvalue() == "epoch 1/2 full      train loss 1.0000  2.0 s\n"


def test_other_processes_of_a_distributed_run_are_silent(capfd):
    epoch(Display(None))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["run", "my run", "-run", "it's", "$HOME", "\u732b", "[red]a", "x" * 100])
def test_the_next_command_works_when_it_is_pasted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    best = Checkpoint("small_cnn", ("a", "b"), "single_label", None, (), (), {}, {}, 1, "run")
    Display(Console(file=stream, width=40)).finish(Path(name), best)
    (line,) = [line for line in stream.getvalue().splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: taxon export "))
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--models")
    parser.add_argument("--name")
    options = parser.parse_args(words)
    assert options.run.resolve() == tmp_path / name
    assert model_name(options.name, options.run)


def test_only_some_of_many_unusable_files_are_listed(tmp_path):
    write_folder(tmp_path, 1)
    for number in range(12):
        (tmp_path / "dark" / f"{number}.txt").touch()
    stream = io.StringIO()
    Display(Console(file=stream)).introduce(tmp_path / "run", data.scan(tmp_path))
    assert "12 files cannot be used" in stream.getvalue()
    assert "and 2 more" in stream.getvalue()
