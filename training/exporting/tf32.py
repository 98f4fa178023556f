"""What a network would answer on CUDA's default arithmetic, computed on the CPU.

TF32 keeps ten bits of mantissa of both factors of a product and sums in float32. Convolutions and linear layers are
rounded here; the products inside attention are not.
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taxon.training.config import Task
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.examples import Example
from taxon.training.exporting.providers import CUDA

Network = TypeVar("Network", bound=nn.Module)
FULL_PRECISION = {CUDA: {"use_tf32": "0"}}
"""Provider options for a graph whose scores TF32 would move too far."""


def round_to_tf32(values: Tensor) -> Tensor:
    """Float32 with ten bits of mantissa, rounded to nearest."""
    bits = values.detach().clone().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def rows(candidate: Candidate, files: Sequence[Example], task: Task, temperature: float) -> NDArray[np.float32]:
    """What the candidate answers with every product in TF32: float32 `[files, K]`, or with the familiarity behind.

    Raises:
        ParityError: A file cannot be read.
    """
    network = rounded(candidate.network)
    logits = parity.reference_logits(network, files, candidate.pixels, candidate.mean, candidate.std)
    return parity.rows_of(logits, len(candidate.labels), task, temperature)


def rounded(network: Network) -> Network:
    """A copy whose layers compute in TF32."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = round_to_tf32(module.weight.data)
            module.register_forward_pre_hook(_round_input)
    return network


def provider_options(
    candidate: Candidate, reference: NDArray[np.float32], tolerances: dict[int, float], temperature: float
) -> dict[str, dict[str, str]]:
    """Turns TF32 off where it would move a golden's score or familiarity by more than half of its tolerance.

    Args:
        candidate: Whose network and pictures.
        reference: What torch answers in full precision.
        tolerances: By index of the golden picture.
        temperature: Of the graph.

    Raises:
        ParityError: A file cannot be read.
    """
    files = [candidate.files[index] for index in tolerances]
    moved = np.abs(rows(candidate, files, candidate.task, temperature) - reference[[*tolerances]]).max(axis=1)
    return FULL_PRECISION if (moved > np.array([*tolerances.values()]) / 2).any() else {}


def _round_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (round_to_tf32(inputs[0]), *inputs[1:])
