"""The metrics of a run as TensorBoard events, for those who watch there. Imports TensorBoard only when asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxon import extras
from taxon.training.errors import TrainingError


class Events:
    """Writes one point per figure and epoch below `<run>/tensorboard`."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(f"--tensorboard needs its package: {extras.install('tensorboard')}") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """One epoch's line of `metrics.jsonl`."""
        for name, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()

    def end(self) -> None:
        """The training is done."""
        self._writer.close()
