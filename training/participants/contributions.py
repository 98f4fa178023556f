"""What participants send: checkpoints that were fine-tuned from one base, on samples that stay where they are.

Nothing in a file is believed but what can be checked: types, architecture, labels, shapes, finite numbers. The count of
samples is the participant's word, which whoever fuses may replace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from taxon.mistaken import first_line
from taxon.training.errors import TrainingError
from taxon.training.runs.checkpoint import Checkpoint

SAME = ("model", "head", "task", "features", "pixels", "mean", "std")
MOST_COUNT = 10**9
LONGEST_RUN_ID = 200
STATISTICS = ("running_mean", "running_var")
"""Of batch normalisation: measured, not trained."""


class ContributionError(TrainingError):
    """A contribution that is not used. The message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """One participant's."""

    name: str
    checkpoint: Checkpoint
    count: int
    """Samples that it was trained on."""
    update: Tensor
    """float64 `[P]`: the trained parameters less the base's."""
    shift: Tensor
    """float64 `[Q]`: the same of the statistics of batch normalisation; Q may be 0."""


def read(word: str, base: Checkpoint) -> Contribution:
    """Reads and checks one contribution.

    Args:
        word: Its file, or `FILE=COUNT` where the file's count of samples is not to be believed.
        base: What all participants started from.

    Raises:
        ContributionError: It cannot be read, or is not a fine-tuning of the base.
    """
    name, _, told = word.rpartition("=") if word.rpartition("=")[2].isdecimal() else (word, "", "")
    try:
        checkpoint = Checkpoint.load(Path(name))
        fault = _fault(checkpoint, base)
    except TrainingError as error:
        raise ContributionError(str(error)) from error
    except Exception as error:  # a file may hold any value anywhere, and one must not end the work on the others
        raise ContributionError(f"it is no checkpoint of Taxon: {type(error).__name__}: {first_line(error)}") from error
    if fault:
        raise ContributionError(fault)
    count = int(told) if told else checkpoint.sample_count
    if type(count) is not int or not 1 <= count <= MOST_COUNT:
        raise ContributionError(
            f"it says that it was trained on {count} samples: say how many, as {name}=COUNT, from 1 to {MOST_COUNT:,}"
        )
    update, shift = (_difference(checkpoint.state, base.state, statistics=statistics) for statistics in (False, True))
    if not update.any() and not shift.any():
        raise ContributionError("it is the base, unchanged")
    return Contribution(name, checkpoint, count, update, shift)


def _fault(checkpoint: Checkpoint, base: Checkpoint) -> str:
    """Why it is no fine-tuning of the base; empty if it is one."""
    if tuple(checkpoint.labels) != base.labels:
        if sorted(checkpoint.labels) == sorted(base.labels):
            return f"its labels are in another order: {[*checkpoint.labels][:5]}, the base's {[*base.labels][:5]}"
        return f"its labels are {[*checkpoint.labels][:5]}, the base's {[*base.labels][:5]}"
    for part in SAME:
        theirs, ours = getattr(checkpoint, part), getattr(base, part)
        if theirs != ours:
            return f"its {part} is {theirs!r}, the base's {ours!r}"
    run_id, state = checkpoint.run_id, checkpoint.state
    if not (isinstance(run_id, str) and 0 < len(run_id) <= LONGEST_RUN_ID and run_id.isprintable()):
        return f"its run id is no text of 1 to {LONGEST_RUN_ID} printable characters"
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return "it holds no state of a network"
    if odd := [key for key, value in state.items() if not _is_plain(value)]:
        return f"{odd[0]} is no plain tensor on the CPU"
    if odd := sorted(map(str, state.keys() ^ base.state.keys())):
        return f"it is of another architecture: {odd[0]} is only in one of it and the base, as {len(odd) - 1} more"
    for key, ours in base.state.items():
        theirs = state[key]
        if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            found, needed = ((*tensor.shape, str(tensor.dtype)) for tensor in (theirs, ours))
            return f"it is of another architecture: {key} is {found} where the base has {needed}"
        if not bool(theirs.isfinite().all()):
            return f"{key} holds values that are no finite numbers"
        if key.endswith("running_var") and bool((theirs < 0).any()):
            return f"{key} holds negative variances"
    return ""


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has its values in memory, one after the other, and no gradient is asked of it."""
    return tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.requires_grad


def _difference(state: Mapping[str, Tensor], base: Mapping[str, Tensor], *, statistics: bool) -> Tensor:
    parts = [
        (state[key].double() - tensor.double()).flatten()
        for key, tensor in base.items()
        if tensor.is_floating_point() and key.endswith(STATISTICS) == statistics
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
