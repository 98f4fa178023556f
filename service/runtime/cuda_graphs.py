"""CUDA graphs of one session: what a batch of each size launches is recorded once, and then launched as a whole."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import answers
from taxon.bundle.manifest import PLACES_OUTPUT

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

# Option of a run: which captured graph it replays.
GRAPH_ID = "gpu_graph_id"
NOT_CAPTURED = "-1"

undisturbed = threading.RLock()
"""Held by whoever captures, and by whoever runs or frees models meanwhile: while a thread captures, CUDA refuses most
calls of all others, and what they call spoils the capture."""


@dataclass(frozen=True, slots=True)
class _Captured:
    """One batch shape's fixed places on the device, and what replays its graph."""

    given: "OrtValue"
    outputs: list["OrtValue"]
    binding: Any
    options: Any


class Replay:
    """Runs a graph whose every batch shape is captured once as a CUDA graph: one launch instead of one for each node.

    A captured graph reads and writes fixed addresses, so inputs are copied into place. One thread at a time, and always
    the same.
    """

    def __init__(self, session: "InferenceSession", onnxruntime: Any) -> None:
        """Captures nothing yet: every shape is captured when it is first run.

        Args:
            session: On CUDA, with `enable_cuda_graph`; of one input.
            onnxruntime: The module that it comes from.
        """
        self._session = session
        self._onnxruntime = onnxruntime
        self._given = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs() if output.name != PLACES_OUTPUT]
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """As `Session.run`."""
        captured = self._captured.get(batch.shape)
        if captured:
            return self._replay(captured, batch)
        captured = self._captured[batch.shape] = self._bind(batch)
        with undisturbed:
            return self._replay(captured, batch)

    def _replay(self, captured: _Captured, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Captures too, the first time."""
        captured.given.update_inplace(batch)
        self._session.run_with_iobinding(captured.binding, captured.options)
        return answers.joined([output.numpy() for output in captured.outputs])

    def _bind(self, batch: NDArray[Any]) -> _Captured:
        # Uncaptured, to learn the outputs' shapes; it also searches the kernels, which must not happen in a capture.
        answered = self._session.run(self._outputs, {self._given: batch}, self._options(NOT_CAPTURED))
        new = self._onnxruntime.OrtValue.ortvalue_from_shape_and_type
        given, *outputs = (new(array.shape, array.dtype, "cuda", 0) for array in (batch, *answered))
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._given, given)
        for name, output in zip(self._outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        return _Captured(given, outputs, binding, self._options(str(len(self._captured) + 1)))

    def _options(self, graph_id: str) -> Any:
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry(GRAPH_ID, graph_id)
        return options
