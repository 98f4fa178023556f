"""What a person sees while training runs: a bar on a terminal, plain lines elsewhere."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from taxon.picture_files import pasted, printable
from taxon.training.dataset.data import SPLITS, Labelled
from taxon.training.runs.checkpoint import Checkpoint

FAULTS_SHOWN = 10
"""All are in the run folder."""


class Display:
    """Shows steps and epochs. A silent one (other processes of a distributed run) shows nothing."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self._progress: Progress | None = None
        if console is not None and console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} steps  loss {task.fields[loss]:.3f}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=1, loss=0.0)

    def say(self, line: str) -> None:
        """One line that stays."""
        if self.console is not None:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def introduce(self, folder: Path, data: Labelled) -> None:
        """What is trained on, and every file that is not."""
        self.say(f"run folder {folder}")
        counts = ", ".join(f"{split} {len(data.split(split))}" for split in SPLITS if data.split(split))
        task = "any number of labels each" if data.task == "multi_label" else "one label each"
        self.say(f"{len(data.labels)} classes, {task}; samples: {counts}")
        if data.faults:
            self.say(f"{len(data.faults)} files cannot be used and were set aside (quarantine.json):")
            for fault in data.faults[:FAULTS_SHOWN]:
                self.say(f"  {printable(fault.path)}: {fault.reason}")
            if len(data.faults) > FAULTS_SHOWN:
                self.say(f"  and {len(data.faults) - FAULTS_SHOWN} more")

    def epoch_begins(self, title: str, steps: int, done: int = 0) -> None:
        """Resets the bar."""
        if self._progress is not None:
            self._progress.start()
            self._progress.update(self._task, description=title, total=steps, completed=done)

    def step_done(self, loss: float) -> None:
        """Moves the bar."""
        if self._progress is not None:
            self._progress.update(self._task, advance=1, loss=loss)

    def epoch_done(self, title: str, line: Mapping[str, Any], *, best: bool) -> None:
        """Prints an epoch's figures; those on the validation split, if it was evaluated."""
        if self._progress is not None:
            self._progress.stop()
        validated = ""
        if "accuracy" in line:
            validated = (
                f"val loss {line['val_loss']:.4f}  accuracy {line['accuracy']:.2%}  macro F1 {line['macro_f1']:.4f}  "
            )
        seconds = f"{line['seconds']:.1f} s{'  best' if best else ''}"
        self.say(f"{title:18}  train loss {line['train_loss']:.4f}  {validated}{seconds}")

    def finish(self, folder: Path, best: Checkpoint) -> None:
        """What came out."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in best.metrics.items())
        self.say(f"best epoch {best.epoch}: {figures}")
        name = "" if re.search("[a-z0-9]", folder.resolve().name.lower()) else " --name classifier"
        self.say(f"next: taxon export {pasted(folder)} --models models{name}")
