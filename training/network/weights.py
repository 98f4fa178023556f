"""Weights files → a state that fits a network, or a message that says why it does not."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from torch import Tensor, nn

from taxon.training.errors import TrainingError
from taxon.training.network import torch_files

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""State of the training-only outputs of Inception and GoogLeNet, which we do not build."""
SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".tar")
STATE_KEYS = ("state", "state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Where training scripts put the network's state: ours, Lightning's, PyTorch's tutorials', torchvision's."""


def is_file(weights: str) -> bool:
    """Whether `weights` means a file rather than a published name, in which there is no point."""
    return Path(weights).suffix in SUFFIXES or "/" in weights or ("." in weights and Path(weights).is_file())


def read_state(path: Path) -> dict[str, Tensor]:
    """The state in a `.pth`, `.pt` or `.safetensors` file, without running any code that is in it.

    Raises:
        TrainingError: Missing, damaged, no state of a network, or several of them.
    """
    content = torch_files.read(path, "weights file")
    while not _is_state(content):
        content = _held(content, path)
    # Of torch.compile, wherever it was applied; networks have no such module of their own.
    return {key.replace("_orig_mod.", ""): value for key, value in content.items()}


def _is_state(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _held(content: object, path: Path) -> object:
    """What a training script wrapped: the entry of a usual name, or the only one that is a state."""
    entries = content if isinstance(content, dict) else {}
    states = {key: value for key, value in entries.items() if isinstance(value, dict) and _holds_state(value)}
    usual = [key for key in STATE_KEYS if key in states]
    if len(usual) > 1 or (not usual and len(states) > 1):
        raise TrainingError(f"the weights file {path} holds several states, {[*states]}: save the one alone")
    if not states:
        raise TrainingError(f"the weights file {path} holds no state of a network")
    return states[usual[0]] if usual else next(iter(states.values()))


def _holds_state(content: Mapping[object, object]) -> bool:
    return _is_state(content) or any(_is_state(content.get(key)) for key in STATE_KEYS)


def unwrapped(state: dict[str, Tensor], own: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """The state under the network's own names, where wrappers have put their names before them: `module.`, Lightning's
    `model.`, averages with counters beside them.

    Args:
        state: As read.
        own: The network's.
        weights: The file or name, for messages.

    Raises:
        TrainingError: Several parts of the state would do.
    """
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    if not needed or any(key in state for key in needed):
        return state
    first = needed[0]
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    counts = {prefix: sum(prefix + key in state for key in needed) for prefix in prefixes}
    best = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    if len(best) > 1:
        raise TrainingError(f"the weights {weights} hold several networks, {best}: save the one alone")
    return {key.removeprefix(best[0]): state[key] for key in state if key.startswith(best[0])} if best else state


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
    state = unwrapped(state, own, weights)
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
    if spoilt := [key for key, value in state.items() if not bool(value.isfinite().all())]:
        raise TrainingError(f"the weights {weights} hold values that are no numbers, in {_shortened(spoilt)}")
    restore(network, state, strict=False)
    return tuple(dropped)


def restore(network: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Loads a state whose names and shapes are the network's. Files do not hold the versions by which modules know
    older layouts, and MNASNet refuses a state without: what fits has the network's own.

    Args:
        network: Changed in place.
        state: Of it.
        strict: Whether nothing may be missing.
    """
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # noqa: SLF001
    network.load_state_dict(versioned, strict=strict)


def _shortened(keys: list[str], count: int = 3) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more
