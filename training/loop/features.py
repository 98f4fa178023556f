"""What reaches the head of a frozen backbone, computed once and kept in a memory-mapped file."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taxon.training.dataset.pictures import content_digest
from taxon.training.loop.batches import LabelledArrays, batches, in_turn
from taxon.training.loop.prepare import Prepared


class _HeadReachedError(Exception):
    """Stops a forward pass at the head; carries the head's input."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def cacheable(network: nn.Module, head: str, example: Tensor) -> bool:
    """Whether the head's output is the network's output, so that the head alone can be trained on its inputs.

    Not so for SqueezeNet, which pools after its head.
    """
    network.eval()
    with torch.inference_mode():
        logits = network(example)
        alone = network.get_submodule(head)(head_input(network, head, example))
    return alone.shape == logits.shape and torch.equal(alone, logits)


def of_splits(
    network: nn.Module,
    head: str,
    prepared: Prepared,
    to_input: Callable[[Tensor], Tensor],
    batch_size: int,
    folder: Path,
) -> tuple[LabelledArrays, LabelledArrays]:
    """The training and validation splits with features in the place of pictures; for arguments see `features`."""
    preprocessing, results = prepared.preprocessing, []
    for split, arrays in (("train", prepared.unvaried), ("val", prepared.val)):
        loaded = content_digest(prepared.data.split(split), preprocessing.pixels)
        content = f"{loaded} {preprocessing.mean} {preprocessing.std}"
        found = features(network, head, arrays, to_input, batch_size=batch_size, content=content, folder=folder)
        results.append(replace(arrays, inputs=found, variation=None))
    return results[0], results[1]


def features(
    network: nn.Module,
    head: str,
    arrays: LabelledArrays,
    to_input: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    content: str,
    folder: Path,
) -> NDArray[np.float32]:
    """The head's inputs for every sample of a split, in its order.

    Args:
        network: In evaluation mode afterwards.
        head: Path of the head.
        arrays: Of the split; not varied at random.
        to_input: Batch inputs as loaded → the network's input, on its device.
        batch_size: Samples per forward pass.
        content: Names what `to_input` makes of the arrays.
        folder: Where the file is kept; its name is a digest of the data and of the backbone's weights.

    Returns:
        float32 [N, ...], memory-mapped.
    """
    key = hashlib.sha256(f"{content} {backbone_digest(network, head)}".encode()).hexdigest()
    file = folder / f"features-{key[:32]}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.stem}-{os.getpid()}.npy")
        try:
            _compute(network, head, arrays, to_input, batch_size, temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    found: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return found


def backbone_digest(network: nn.Module, head: str) -> str:
    """sha256 over the whole state outside the head: parameters, buffers, names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not name.startswith(f"{head}."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.inference_mode()
def _compute(
    network: nn.Module,
    head: str,
    arrays: LabelledArrays,
    to_input: Callable[[Tensor], Tensor],
    batch_size: int,
    file: Path,
) -> None:
    network.eval()
    written: np.memmap | None = None
    for batch in batches(arrays, in_turn(len(arrays), batch_size)):
        rows = head_input(network, head, to_input(batch.inputs)).float().cpu().numpy()
        if written is None:
            written = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(len(arrays), *rows.shape[1:]))
        written[batch.samples.numpy()] = rows
    if written is not None:
        written.flush()


def head_input(network: nn.Module, head: str, inputs: Tensor) -> Tensor:
    """What reaches the head of a network that is given float [n, ...] inputs: float [n, ...]."""

    def stop(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        raise _HeadReachedError(arguments[0])

    handle = network.get_submodule(head).register_forward_pre_hook(stop)
    try:
        network(inputs)
    except _HeadReachedError as reached:
        return reached.features
    finally:
        handle.remove()
    raise RuntimeError(f"the forward pass never reached {head}")
