"""One graph on one execution provider. The only module that imports onnxruntime.

Knows arrays and providers; not labels, pictures or batching. Never falls back to the CPU silently.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.bundle import answers, class_maps, graph_files, thumbnails
from taxon.bundle.class_maps import Head
from taxon.bundle.manifest import PLACES_OUTPUT, BundleError
from taxon.mistaken import first_line
from taxon.service.runtime.cuda_graphs import GRAPH_ID, NOT_CAPTURED, Replay
from taxon.service.runtime.device import CPU, CUDA, CUDA_GRAPHS, ENGINE_CACHE, TENSORRT, Options
from taxon.service.runtime.explained import packed
from taxon.service.runtime.tensor_types import OF_NUMPY

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg, RunOptions

RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
ONNX_NAMES = {"float32": "float", "float64": "double"}
"""Of the types that NumPy calls otherwise."""
Clock = Callable[[], float]
TYPES = {f"tensor({ONNX_NAMES.get(name, name)})": name for name in OF_NUMPY}

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
def import_onnxruntime(provider: str) -> Any:
    """ONNX Runtime, imported when it is first needed. It must not report to anybody what it runs."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(3)  # 1.31 warns of a plugin that CUDA does not need, at every session
    if provider != CPU and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    return onnxruntime


class Session:
    """A loaded graph."""

    def __init__(
        self,
        session: "InferenceSession",
        options: "RunOptions",
        replay: Replay | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._session = session
        self._options = options
        self._replay = replay
        self.clock = clock
        """Seconds of its runs, on the thread that has them run."""
        self.provider: str = session.get_providers()[0]
        self.inputs = [_tensor(node) for node in session.get_inputs()]
        self.outputs = [_tensor(node) for node in session.get_outputs()]
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self._answers = [output.name for output in self.outputs if output.name != PLACES_OUTPUT]

    def run(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs a bundle's graph, which has one input, on `[batch, …]`; returns its `answers` as float32 rows. Any
        thread may call it, but with CUDA graphs only one at a time.
        """
        if self._replay:
            return self._replay.run(batch)
        return answers.joined(self._session.run(self._answers, {self.inputs[0].name: batch}, self._options))

    def run_with_places(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `run`, and the features of each place: float32 `[batch, features, rows, columns]`."""
        *rows, places = self._session.run([*self._answers, PLACES_OUTPUT], {self.inputs[0].name: batch}, self._options)
        return answers.joined(rows), places

    def explain(self, batch: NDArray[np.uint8], head: Head | None) -> NDArray[Any]:
        """Runs a bundle's graph on pictures that are to be explained, see `explained`. No head: it gives no places."""
        if head is None:
            return packed(batch, self.run(batch))
        rows, places = self.run_with_places(batch)
        return packed(batch, rows, class_maps.of_places(places, head), thumbnails.of_places(places))

    def run_tensors(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs the graph on an array for each input; returns one for each of `outputs`. Any thread may call it."""
        results: list[NDArray[Any]] = self._session.run([output.name for output in self.outputs], dict(feeds))
        return results

    def probe(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]] | None:
        """As `run_tensors`, but None if the graph fails on these arrays. Its complaints go to the debug log only."""
        options = import_onnxruntime(self.provider).RunOptions()
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


def open_session(
    graph: Path, provider: str, thread_count: int, provider_options: Options, precision: str = "fp32"
) -> Session:
    """Loads a graph onto `provider`. The log says where its nodes are, if that is not the CPU.

    Args:
        graph: An ONNX file.
        provider: `CPU`, `CUDA`, or `TENSORRT`, which leaves to CUDA what it cannot do.
        thread_count: Threads of one run on the CPU.
        provider_options: The manifest's options, and over them what the operator chose.
        precision: Of the graph.

    Raises:
        BundleError: ONNX Runtime does not take the graph, or not on this provider.
    """
    onnxruntime = import_onnxruntime(provider)
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
    without = ["NchwcTransformer"] if precision == "fp16" and provider == CPU else []
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers, disabled_optimizers=without)
        session.disable_fallback()
    except Exception as error:
        raise BundleError(f"ONNX Runtime does not load the graph: {first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise BundleError(f"the graph runs on {session.get_providers()[0]}, not on {provider}")
    if provider != CPU:
        nodes = Counter(part.ep_name for part in session.get_provider_graph_assignment_info() for _ in part.get_nodes())
        log.info("graph placed", execution_provider=provider, nodes=dict(nodes))
        if not nodes[provider]:  # that it starts does not mean that it does anything
            raise BundleError(f"no node of the graph runs on {provider}, but {dict(nodes)}")
    captures = provider == CUDA and dict(providers)[CUDA].get(CUDA_GRAPHS) == "1"
    chosen = onnxruntime.RunOptions()
    if captures:
        chosen.add_run_config_entry(GRAPH_ID, NOT_CAPTURED)
    # What one thread does is timed by its own clock: a load yields to whoever waits for answers.
    clock = time.thread_time if provider == CPU and thread_count == 1 else time.perf_counter
    return Session(session, chosen, Replay(session, onnxruntime) if captures else None, clock)


def _providers(graph: Path, provider: str, chosen: Options) -> list[tuple[str, dict[str, str]]]:
    if provider == CPU:
        return [(CPU, dict(chosen.get(CPU, {})))]
    cuda = (CUDA, {"arena_extend_strategy": "kSameAsRequested", **chosen.get(CUDA, {})})
    if provider == CUDA:
        return [cuda]
    tensorrt = dict(chosen.get(TENSORRT, {}))
    if folder := tensorrt.get(ENGINE_CACHE):
        # The provider tells engines apart by names in the graph, not by weights.
        own = Path(folder, graph_files.digest(graph)[:16])
        own.mkdir(parents=True, exist_ok=True)
        tensorrt |= {"trt_engine_cache_enable": "1", ENGINE_CACHE: str(own)}
        tensorrt |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    return [(TENSORRT, tensorrt), cuda]


def _tensor(node: "NodeArg") -> Tensor:
    return Tensor(node.name, TYPES.get(node.type, node.type), tuple(node.shape))
