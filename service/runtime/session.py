"""One graph on one execution provider. The only module that imports onnxruntime.

Knows arrays and providers; not labels, pictures or batching. Never falls back to the CPU silently.
"""

import functools
import hashlib
import importlib
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.bundle.manifest import BundleError
from taxon.service.errors import StartError
from taxon.service.runtime.cuda_graphs import Replay

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
Options = Mapping[str, Mapping[str, str]]
"""ONNX Runtime's options, by execution provider."""
CUDA_GRAPHS = "enable_cuda_graph"
ENGINE_CACHE = "trt_engine_cache_path"
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
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


@dataclass(frozen=True, slots=True)
class Device:
    """Where graphs run."""

    provider: str
    options: Options = field(default_factory=dict)
    """What the operator puts over every manifest's options."""


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

    def __init__(self, session: "InferenceSession", replay: Replay | None = None) -> None:
        self._session = session
        self._replay = replay
        self.provider: str = session.get_providers()[0]
        self.inputs = [_tensor(node) for node in session.get_inputs()]
        self.outputs = [_tensor(node) for node in session.get_outputs()]
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs a graph of one input and one output on `[batch, …]`; returns float32 `[batch, classes]`. Any thread
        may call it, but with CUDA graphs only one at a time.
        """
        if self._replay:
            return self._replay.run(batch)
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


def merged(*sets: Options) -> dict[str, dict[str, str]]:
    """Sets of options as one; later ones win."""
    providers = dict.fromkeys(provider for options in sets for provider in options)
    return {
        provider: {key: value for options in sets for key, value in options.get(provider, {}).items()}
        for provider in providers
    }


def profile(name: str, shape: Sequence[int], largest: int) -> dict[str, str]:
    """TensorRT's options for an input of batches from 1 to `largest`, best at `largest`; without them it would build an
    engine anew for every new shape.
    """
    least, most = ("x".join(map(str, (count, *shape))) for count in (1, largest))
    return {
        "trt_profile_min_shapes": f"{name}:{least}",
        "trt_profile_opt_shapes": f"{name}:{most}",
        "trt_profile_max_shapes": f"{name}:{most}",
    }


def open_session(graph: bytes | Path, provider: str, thread_count: int, provider_options: Options) -> Session:
    """Loads a graph onto `provider`. The log says where its nodes are, if that is not the CPU.

    Args:
        graph: An ONNX file, or its bytes, of which ONNX Runtime keeps a copy.
        provider: `CPU`, `CUDA`, or `TENSORRT`, which leaves to CUDA what it cannot do.
        thread_count: Threads of one run on the CPU.
        provider_options: The manifest's options, and over them what the operator chose.

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
    # One block for all that a run needs, planned for each batch size, holds a fifth more memory and saves no time.
    options.enable_mem_pattern = provider != CPU
    if provider != CPU:
        options.add_session_config_entry(RECORD_PLACEMENT, "1")
    providers = _providers(graph, provider, provider_options)
    # ONNX Runtime 1.31 ends the process, without an exception, when it lays out a ViT in fp16 for the CPU.
    is_half = isinstance(graph, Path) and ".fp16." in graph.name
    without = ["NchwcTransformer"] if is_half and provider == CPU else []
    try:
        source = graph if isinstance(graph, bytes) else str(graph)
        session = onnxruntime.InferenceSession(source, options, providers=providers, disabled_optimizers=without)
        session.disable_fallback()
    except Exception as error:
        raise BundleError(f"ONNX Runtime does not load the graph: {error}") from error
    if session.get_providers()[0] != provider:
        raise BundleError(f"the graph runs on {session.get_providers()[0]}, not on {provider}")
    if provider != CPU:
        nodes = Counter(part.ep_name for part in session.get_provider_graph_assignment_info() for _ in part.get_nodes())
        log.info("graph placed", execution_provider=provider, nodes=dict(nodes))
        if not nodes[provider]:  # that it starts does not mean that it does anything
            raise BundleError(f"no node of the graph runs on {provider}, but {dict(nodes)}")
    captures = provider == CUDA and dict(providers)[CUDA].get(CUDA_GRAPHS) == "1"
    return Session(session, Replay(session, onnxruntime) if captures else None)


def _providers(graph: bytes | Path, provider: str, chosen: Options) -> list[tuple[str, dict[str, str]]]:
    if provider == CPU:
        return [(CPU, dict(chosen.get(CPU, {})))]
    cuda = (CUDA, {"arena_extend_strategy": "kSameAsRequested", **chosen.get(CUDA, {})})
    if provider == CUDA:
        return [cuda]
    tensorrt = dict(chosen.get(TENSORRT, {}))
    if folder := tensorrt.get(ENGINE_CACHE):
        # The provider tells engines apart by names in the graph, not by weights.
        content = graph if isinstance(graph, bytes) else graph.read_bytes()
        own = Path(folder, hashlib.sha256(content).hexdigest()[:16])
        own.mkdir(parents=True, exist_ok=True)
        tensorrt |= {"trt_engine_cache_enable": "1", ENGINE_CACHE: str(own)}
        tensorrt |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    return [(TENSORRT, tensorrt), cuda]


def choose_provider(device: Literal["auto", "cuda", "tensorrt", "cpu"]) -> str:
    """The execution provider for `device`, tried on a graph of one node: what the wheel lists may not work.

    Raises:
        StartError: `cuda` or `tensorrt` was asked for and does not work; the message holds the reason.
    """
    if device == "cpu":
        return CPU
    provider = TENSORRT if device == "tensorrt" else CUDA
    reason = _why_not(provider)
    if reason is None:
        return provider
    if device != "auto":
        raise StartError(f"--device {device}: {reason}")
    log.warning("CUDA does not work, serving on the CPU", reason=reason)
    return CPU


def choose_device(
    device: Literal["auto", "cuda", "tensorrt", "cpu"], cuda_graphs: bool, engine_cache: Path | None
) -> Device:
    """What the operator's settings mean here.

    Raises:
        StartError: The device does not work, see `choose_provider`; or a setting is of another one.
    """
    provider = choose_provider(device)
    if cuda_graphs and provider != CUDA:
        raise StartError(f"--cuda-graphs needs CUDA, the provider is {provider}")
    if engine_cache and provider != TENSORRT:
        raise StartError(f"--engine-cache is of TensorRT, the provider is {provider}")
    if cuda_graphs:
        return Device(provider, {CUDA: {CUDA_GRAPHS: "1"}})
    return Device(provider, {TENSORRT: {ENGINE_CACHE: str(engine_cache)}} if engine_cache else {})


def _why_not(provider: str) -> str | None:
    kind = "TensorRT" if provider == TENSORRT else "CUDA"
    if not _has_library(kind.lower()):
        return f"this onnxruntime has no {kind} support: install taxon[gpu] instead of taxon[cpu]"
    onnxruntime = _onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    if provider == TENSORRT and importlib.util.find_spec("tensorrt"):
        importlib.import_module("tensorrt")  # which loads its libraries; without the package, the system's are used
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(IDENTITY_GRAPH, options, providers=[provider])
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no base class
        return str(error)
    if session.get_providers()[0] != provider:
        return f"ONNX Runtime could not start {kind} and offers {session.get_providers()}: see its log above"
    return None


def _has_library(kind: str) -> bool:
    """Whether the installed wheel brings its provider `kind`, told without loading the wheel."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found.submodule_search_locations if found else None) or []
    return any(any(Path(folder, "capi").glob(f"*onnxruntime_providers_{kind}*")) for folder in folders)


def _tensor(node: "NodeArg") -> Tensor:
    return Tensor(node.name, TYPES.get(node.type, node.type), tuple(node.shape))


# x → Identity → y, float32 [1], opset 13: the smallest graph that makes a provider start. Written out because
# the service does not depend on onnx; a test builds it again with onnx and compares.
IDENTITY_GRAPH = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
