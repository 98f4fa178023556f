"""The metrics of a run as TensorBoard events, for those who watch there. Imports TensorBoard only when asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes one point per figure and epoch below `<run>/tensorboard`."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

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
