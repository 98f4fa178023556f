"""Class activation maps: their features found in the network, compared with torch's, kept of the goldens.

What the last layer makes of each place, before the places are pooled (Zhou et al., "Learning deep features for
discriminative localization", CVPR 2016). Behind an average the mean of a label's map is its logit; behind a maximum
(Oquab et al., "Is object localization for free?", CVPR 2015) no place alone makes more of a feature than the map shows.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taxon.bundle import class_maps
from taxon.bundle.manifest import MapSpec
from taxon.bundle.proof import map_difference
from taxon.training.exporting import parity, tf32
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.examples import Example
from taxon.training.exporting.judge import Judged, NoFeaturesError, Watched
from taxon.training.exporting.mapped import Mapped, Place

WEIGHTS = "maps.npy"
TOLERANCE = 0.02
"""Of a golden's map at load, as a share of its largest value. Room for TF32, as `goldens.GOLDEN_TOLERANCE`."""
SAME = 1e-4
"""Relative difference below which what reaches the head is the pooled maps."""
TRIED = 2
"""Pictures on which that is looked at."""


def mapped(candidate: Candidate) -> tuple[Mapped | None, str]:
    """The candidate's network with maps, and a sentence about it; or None, and why it has none.

    Raises:
        ParityError: A validation picture cannot be read.
    """
    try:
        place, shape = _find(candidate)
    except NoFeaturesError as error:
        return None, f"explanations are by masking: {error}"
    assert candidate.head is not None  # noqa: S101 - `_find` has looked
    rows, columns = shape
    return Mapped(candidate.network, candidate.head, place), f"explanations are by maps of {rows}x{columns} places"


def write(network: Mapped, golden_maps: Mapping[int, NDArray[np.float32]], staged: Path) -> MapSpec:
    """Writes the weights into the bundle. Returns what the manifest says of its maps."""
    (staged / WEIGHTS).write_bytes(class_maps.write_head(network.head_weights))
    rows, columns = next(iter(golden_maps.values())).shape
    feature_count = network.head_weights.shape[1] - 1
    return MapSpec(feature_count=feature_count, shape=(rows, columns), weights=WEIGHTS, tolerance=TOLERANCE)


@torch.inference_mode()
def of_pictures(
    network: Mapped, candidate: Candidate, indexes: Sequence[int], winners: NDArray[np.int64]
) -> dict[int, NDArray[np.float32]]:
    """What torch gives: `[rows, columns]` by index of the validation picture.

    Args:
        network: With maps.
        candidate: Whose validation pictures are used.
        indexes: Of those.
        winners: The label by index of the validation picture.
    """
    files = [candidate.files[index] for index in indexes]
    batches = [network.maps(inputs) for inputs in _inputs(candidate, files)]
    maps = torch.cat(batches)[: len(files)].numpy()
    return {index: maps[number, winners[index]] for number, index in enumerate(indexes)}


def provider_options(
    network: Mapped | None,
    candidate: Candidate,
    golden_maps: Mapping[int, NDArray[np.float32]],
    winners: NDArray[np.int64],
) -> dict[str, dict[str, str]]:
    """Turns TF32 off where it would move a golden's map by more than half of the tolerance.

    Args:
        network: With maps; None: there are none.
        candidate: Whose validation pictures are used.
        golden_maps: What torch gives, by index of the golden picture.
        winners: The label by index of the validation picture.
    """
    if network is None:
        return {}
    given = of_pictures(tf32.rounded(network), candidate, [*golden_maps], winners)
    moved = max(map_difference(given[index], wanted) for index, wanted in golden_maps.items())
    return tf32.FULL_PRECISION if moved > TOLERANCE / 2 else {}


def graph_difference(
    path: Path,
    network: Mapped,
    candidate: Candidate,
    expected: Mapping[int, NDArray[np.float32]],
    winners: NDArray[np.int64],
) -> float:
    """How far a graph's maps of the goldens are from these, see `map_difference`. On the CPU."""
    session = parity.open_session(path)
    files = [candidate.files[index] for index in expected]
    batches = parity.decoded_batches(files, candidate.pixels, (1,))
    maps = [parity.maps(session, arrays, network.head_weights)[0] for _, arrays in batches]
    return max(
        map_difference(given[winners[index]], wanted)
        for given, (index, wanted) in zip(maps, expected.items(), strict=True)
    )


@torch.inference_mode()
def largest_difference(path: Path, provider: str, candidate: Candidate, network: Mapped) -> float:
    """How far the graph's maps are from torch's, over all validation pictures and labels: the largest difference as a
    share of the largest value of any label's map of the same picture.

    Raises:
        ParityError: The graph does not run, or a file cannot be read.
    """
    session, head, found = parity.open_session(path, provider), network.head_weights, []
    batches = parity.decoded_batches(candidate.files, candidate.pixels, (_batch_size(candidate.files),))
    for inputs, (_, arrays) in zip(_inputs(candidate, candidate.files), batches, strict=True):
        pairs = zip(parity.maps(session, arrays, head), network.maps(inputs).numpy(), strict=True)
        found += [map_difference(given, wanted) for given, wanted in pairs]
    return float(np.max(found))  # NaN stays


def _inputs(candidate: Candidate, files: Sequence[Example]) -> Iterator[Tensor]:
    return parity.network_inputs(files, candidate.pixels, candidate.mean, candidate.std)


def _batch_size(files: Sequence[Example]) -> int:
    return min(parity.REFERENCE_BATCH, len(files))


@torch.inference_mode()
def _find(candidate: Candidate) -> tuple[Place, tuple[int, int]]:
    """Where the maps are, and their rows and columns.

    Raises:
        NoFeaturesError: Nowhere; the message says why.
    """
    if candidate.pixels is None:
        raise NoFeaturesError("the classifier takes numbers")
    if candidate.head is None:
        raise NoFeaturesError("the last layer of an imported graph or of an ensemble is in no one place")
    network = candidate.network.watched.network if isinstance(candidate.network, Judged) else candidate.network
    if not isinstance(network.get_submodule(candidate.head), nn.Linear):
        raise NoFeaturesError("the network does not end in a linear layer")
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_hook(functools.partial(_note, seen.setdefault(path, [])))
        for path, module in network.named_modules()
    ]
    try:
        _, features = Watched(network, candidate.head)(next(_inputs(candidate, candidate.files[:TRIED])))
    finally:
        for hook in hooks:
            hook.remove()
    for path, outputs in sorted(seen.items(), key=lambda entry: entry[0].count(".")):  # the outermost module first
        if len(outputs) != 1 or outputs[0].dim() != 4 or outputs[0].shape[2:].numel() < 2:
            continue
        for rectified in (False, True):
            maps = outputs[0].relu() if rectified else outputs[0]
            if any(_alike(pooled, features) for pooled in (maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)))):
                rows, columns = maps.shape[2:]
                return Place(path, rectified), (rows, columns)
    raise NoFeaturesError("the last layer does not stand behind a global pooling")


def _note(outputs: list[Tensor], _: nn.Module, __: object, output: object) -> None:
    if isinstance(output, Tensor):
        outputs.append(output.clone())


def _alike(pooled: Tensor, features: Tensor) -> bool:
    if pooled.shape != features.shape:
        return False
    return float((pooled - features).abs().max()) <= SAME * max(float(features.abs().max()), SAME)
