"""Weights files and names → a state that fits a network, or a message that says why it does not."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from taxon.training.errors import TrainingError

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""State of the training-only outputs of Inception and GoogLeNet, which we do not build."""
SUFFIXES = (".pth", ".pt", ".safetensors")


def is_file(weights: str) -> bool:
    """Whether `weights` means a file rather than a published name."""
    return Path(weights).suffix in SUFFIXES or "/" in weights


def fetched(fetch: Callable[[], dict[str, Tensor]], weights: str, name: str, address: str) -> dict[str, Tensor]:
    """Published weights, from the cache on this machine or the network.

    Args:
        fetch: Gets them.
        weights: Their name.
        name: The model's.
        address: Where a person finds them.

    Raises:
        TrainingError: They could not be had; the message says what to do instead.
    """
    try:
        return dict(fetch())
    except Exception as error:  # each of the download libraries has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"the weights {weights} of {name} could not be downloaded ({reason}): fetch {address} on a machine "
            "with a network and pass the file with --weights FILE, or train from scratch with --weights none"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The state in a `.pth`, `.pt` or `.safetensors` file, without running any code that is in it.

    Raises:
        TrainingError: Missing, damaged, or no state of a network.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"the weights file {path} does not exist") from error
    except Exception as error:  # both loaders raise many kinds on foreign bytes
        raise TrainingError(f"the weights file {path} cannot be read: {error}") from error
    for key in ("state", "state_dict", "model"):  # our checkpoints, Lightning's, torchvision's scripts'
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise TrainingError(f"the weights file {path} holds no state of a network")
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in content.items()}


def fill(network: nn.Module, state: dict[str, Tensor], head: str, *, name: str, weights: str) -> tuple[str, ...]:
    """Loads `state` into `network`; a head of another class count is left out.

    Args:
        network: Changed in place.
        state: As read; for colour pictures if `network` takes grey ones, it is summed over the colours.
        head: Path of the last layer.
        name: The model's, for messages.
        weights: The file or name, for messages.

    Returns:
        The keys that were left out.

    Raises:
        TrainingError: The state is of another architecture; names keys that are missing, unexpected or of other
            shapes.
    """
    own = network.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY) or key in own}
    dropped = [
        key for key in state if key.startswith(f"{head}.") and own.get(key, state[key]).shape != state[key].shape
    ]
    # maxvit's, and any head whose class count happens to fit, has the same shape and is kept.
    for key in dropped:
        del state[key]
    for key, value in state.items():
        if key in own and value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1:
            state[key] = value.sum(dim=1, keepdim=True)  # grey is r = g = b
    # A head left out, and the counters that early files of torchvision lack, may stay as they are.
    missing = [
        key for key in own if key not in state and key not in dropped and not key.endswith("num_batches_tracked")
    ]
    foreign = [key for key in state if key not in own]
    unequal = [
        f"{key} {tuple(state[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in state
        if key in own and own[key].shape != state[key].shape
    ]
    faults = [
        f"{title} {_shortened(keys)}"
        for title, keys in (("missing", missing), ("unexpected", foreign), ("mismatched", unequal))
        if keys
    ]
    if faults:
        raise TrainingError(f"the weights {weights} are not of the architecture {name}: {'; '.join(faults)}")
    network.load_state_dict(state, strict=False)
    return tuple(dropped)


def _shortened(keys: list[str], count: int = 3) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more
