"""One graph on one execution provider. The only module that imports onnxruntime.

Knows arrays and providers; not labels, pictures or batching. Never falls back to the CPU silently.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from service.errors import StartError
from taxon.bundle.manifest import BundleError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    dtype: str
    """NumPy's name, or ONNX's if NumPy has no such type, such as `tensor(string)`."""
    shape: tuple[int | str | None, ...]
    """A string or None is an axis of any length."""


@functools.cache
def _onnxruntime() -> Any:
    """ONNX Runtime, imported when a model is first run here: a process whose workers run the models saves its memory
    and its import. It must not report to anybody what it runs.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


class Session:
    """A loaded graph."""

    def __init__(self, session: "InferenceSession") -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.inputs = [_tensor(node) for node in session.get_inputs()]
        self.outputs = [_tensor(node) for node in session.get_outputs()]
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs a graph of one input and one output on `[batch, …]`; returns float32 `[batch, classes]`. Any thread
        may call it.
        """
        scores: NDArray[np.float32] = self._session.run([self.outputs[0].name], {self.inputs[0].name: batch})[0]
        return scores

    def run_tensors(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs the graph on an array for each input; returns one for each of `outputs`. Any thread may call it."""
        results: list[NDArray[Any]] = self._session.run([output.name for output in self.outputs], dict(feeds))
        return results

    def probe(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]] | None:
        """As `run_tensors`, but None if the graph fails on these arrays. Its complaints go to the debug log only."""
        options = _onnxruntime().RunOptions()
        options.log_severity_level = 4
        try:
            return list(self._session.run([output.name for output in self.outputs], dict(feeds), options))
        except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no base class
            log.debug("graph fails on a probe", reason=str(error))
            return None


def open_session(
    graph: bytes, provider: str, thread_count: int, provider_options: Mapping[str, Mapping[str, str]]
) -> Session:
    """Loads a graph onto `provider`.

    Args:
        graph: The bytes of an ONNX file.
        provider: `CPU` or `CUDA`.
        thread_count: Threads of one run on the CPU.
        provider_options: The manifest's options, by provider.

    Raises:
        BundleError: ONNX Runtime does not take the graph, or not on this provider.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    defaults = {"arena_extend_strategy": "kSameAsRequested"} if provider == CUDA else {}
    providers = [(provider, {**defaults, **provider_options.get(provider, {})})]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
        session.disable_fallback()
    except Exception as error:
        raise BundleError(f"ONNX Runtime does not load the graph: {error}") from error
    if session.get_providers()[0] != provider:
        raise BundleError(f"the graph runs on {session.get_providers()[0]}, not on {provider}")
    return Session(session)


def choose_provider(device: Literal["auto", "cuda", "cpu"]) -> str:
    """The execution provider for `device`, tried on a graph of one node: what the wheel lists may not work.

    Raises:
        StartError: `cuda` was asked for and does not work; the message holds the reason.
    """
    if device == "cpu":
        return CPU
    reason = _why_no_cuda()
    if reason is None:
        return CUDA
    if device == "cuda":
        raise StartError(f"--device cuda: {reason}")
    log.warning("CUDA does not work, serving on the CPU", reason=reason)
    return CPU


def _why_no_cuda() -> str | None:
    if not _has_cuda_library():
        return "this onnxruntime has no CUDA support: install taxon[gpu] instead of taxon[cpu]"
    onnxruntime = _onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(IDENTITY_GRAPH, options, providers=[CUDA])
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no base class
        return str(error)
    if session.get_providers()[0] != CUDA:
        return f"ONNX Runtime could not start CUDA and offers {session.get_providers()}: see its log above"
    return None


def _has_cuda_library() -> bool:
    """Whether the installed wheel brings its CUDA provider, told without loading the wheel."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found.submodule_search_locations if found else None) or []
    return any(any(Path(folder, "capi").glob("*onnxruntime_providers_cuda*")) for folder in folders)


def _tensor(node: "NodeArg") -> Tensor:
    return Tensor(node.name, TYPES.get(node.type, node.type), tuple(node.shape))


# x → Identity → y, float32 [1], opset 13: the smallest graph that makes a provider start. Written out because
# the service does not depend on onnx; a test builds it again with onnx and compares.
IDENTITY_GRAPH = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
