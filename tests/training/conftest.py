"""What tests of training and export share."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Toys are too small to share out: threads that wait for each other take the time, and another number of them gives
    other last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _operators_once() -> Iterator[None]:
    """torch reads its library of ONNX operators anew for each graph: half the time that a toy's export takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield
