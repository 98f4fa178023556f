"""Files of torch and safetensors → what they hold, without running any code in them; or why not, in one sentence."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from taxon.mistaken import MISTAKEN_BYTES, first_line, mistaken_for
from taxon.training.errors import TrainingError

FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
"""How torch names what a file holds beside tensors and plain values."""


def read(path: Path, what: str) -> Any:
    """The content of a `.safetensors` file, or of any other by torch; all tensors on the CPU.

    Args:
        path: The file.
        what: What it should be, for messages: "weights file", "checkpoint".

    Raises:
        TrainingError: Missing, damaged, something else, or more than tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            mistaken = mistaken_for(file.read(MISTAKEN_BYTES))
    except FileNotFoundError as error:
        raise TrainingError(f"the {what} {path} does not exist") from error
    except OSError as error:
        raise TrainingError(f"the {what} {path} cannot be read: {error.strerror}") from error
    if mistaken:
        raise TrainingError(f"the {what} {path} cannot be read: it is {mistaken}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both loaders raise many kinds on foreign bytes
        foreign = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
        reason = _unpickled(str(error)) if foreign else first_line(error)
        raise TrainingError(f"the {what} {path} cannot be read: {reason}") from error


def _unpickled(complaint: str) -> str:
    """Torch's advice is to load it with a flag that would run the file's code."""
    found = FOREIGN.search(complaint)
    if found is None:
        return "it is no file of torch, or holds more than tensors and plain values"
    name = found[1]
    if name.startswith("numpy"):
        return (
            f"it holds values of NumPy ({name}) beside the tensors: save the state alone, or make those values Python's"
        )
    return f"it holds objects that only their own code can read ({name}): save the network's state_dict() instead"
