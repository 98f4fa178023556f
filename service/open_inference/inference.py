"""Named tensors → named arrays: the Open Inference Protocol's way through the one pipeline.

Each input of a request goes by itself through permits, decoding and batching, as those of `Classify` do; what comes
back is put together again. Knows no protobuf.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import GRAPH_INPUTS, GRAPH_OUTPUT
from taxon.service.errors import FieldInvalidError, InferenceFailedError, ModelNotFoundError, NotServingError
from taxon.service.models.control import ModelControl
from taxon.service.models.repository import Repository, Served
from taxon.service.open_inference.tensors import BYTES, Tensor, TensorSpec, shown
from taxon.service.pipeline import Pipeline, Timing
from taxon.service.runtime.config_pbtxt import FORMAT_NHWC, Described
from taxon.service.runtime.graph_proof import ServedGraph
from taxon.service.runtime.packing import pack, unpack
from taxon.service.scheduling.batching import Scored

MAX_NAME_LENGTH = 256
OneResult = tuple[Scored, Timing]


@dataclass(frozen=True, slots=True)
class Inferred:
    """The answer to one request."""

    outputs: Sequence[NDArray[Any]]
    """In the order of the model's outputs."""
    input_count: int
    slowest: Timing
    """Of the input that took longest."""


class Inference:
    """Finds models of both kinds and runs them."""

    def __init__(
        self,
        pipeline: Pipeline,
        bundles: Repository[Served],
        tensor_models: Repository[ServedGraph],
        control: ModelControl,
        buckets: Sequence[int],
        max_batch_size: int,
    ) -> None:
        """Only keeps its parts.

        Args:
            pipeline: Of every input.
            bundles: Models with a manifest.
            tensor_models: Models without.
            control: Knows what may yet be loaded.
            buckets: Batch sizes that bundles run.
            max_batch_size: Of one request for a bundle.
        """
        self._pipeline = pipeline
        self._bundles = bundles
        self._tensor_models = tensor_models
        self._control = control
        self._buckets = buckets
        self._max_batch_size = max_batch_size

    def find(self, name: str, version: str) -> Served | ServedGraph:
        """The model that a call names.

        Args:
            name: Of the model.
            version: Empty for the default version, else a decimal number or a label.

        Raises:
            FieldInvalidError: No name, or the version is neither a positive integer nor a label of the model.
            ModelNotFoundError: There is no such model or version.
            NotServingError: It is being loaded.
        """
        if not name:
            raise FieldInvalidError("model_name", "must be set")
        if len(name) > MAX_NAME_LENGTH or len(version) > MAX_NAME_LENGTH:
            raise ModelNotFoundError(name, version)
        try:
            if self._tensor_models.versions(name):
                return self._tensor_models.find(name, version)
            return self._bundles.find(name, version)
        except (ModelNotFoundError, NotServingError):
            if version and not _is_number(version):
                raise FieldInvalidError("model_version", f"must be a positive integer, not {shown(version)}") from None
            raise self._control.why_missing(name, version) from None

    def versions(self, name: str) -> Sequence[int]:
        """The served versions of a model, ascending."""
        return self._tensor_models.versions(name) or self._bundles.versions(name)

    def listing(self) -> Sequence[Served | ServedGraph]:
        """Every served version, by name and version."""
        models: list[Served | ServedGraph] = [*self._bundles.listing(), *self._tensor_models.listing()]
        return sorted(models, key=lambda model: (model.name, model.version))

    def describe(self, model: Served | ServedGraph) -> Described:
        """What the protocol tells of a model."""
        if isinstance(model, ServedGraph):
            return model.described
        manifest = model.manifest
        name = GRAPH_INPUTS[manifest.input.kind]
        if manifest.input.kind == "image":
            inputs = [TensorSpec(name, "UINT8", (-1, *manifest.input.shape)), TensorSpec(name, BYTES, (-1,))]
        else:
            inputs = [TensorSpec(name, "FP32", (-1, *manifest.input.shape))]
        return Described(
            manifest.name,
            manifest.version,
            inputs,
            [TensorSpec(GRAPH_OUTPUT, "FP32", (-1, len(manifest.labels)))],
            {GRAPH_OUTPUT: manifest.labels},
            self._max_batch_size,
            self._buckets,
            model.provider,
            model.precision,
            {name: FORMAT_NHWC} if manifest.input.kind == "image" else {},
        )

    async def infer(
        self, model: Served | ServedGraph, tensors: dict[str, Tensor], deadline: float, priority: int
    ) -> Inferred:
        """Runs a model on the tensors of one request, which fit its description.

        Args:
            model: Found.
            tensors: By name.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.

        Raises:
            FieldInvalidError: The batch is too large or not the same for all tensors, or a feature is not finite.
            ServiceError: As `Pipeline.classify`, for the first input that fails.
            PictureError: As above.
        """
        if isinstance(model, ServedGraph):
            return await self._infer_graph(model, tensors, deadline, priority)
        (tensor,) = tensors.values()
        _check_batch([len(tensor)], self._max_batch_size)
        steps: list[Callable[[], Awaitable[OneResult]]]
        if isinstance(tensor, tuple):
            steps = [_step(self._pipeline.score, model, encoded, deadline, priority) for encoded in tensor]
        else:
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise FieldInvalidError("inputs[0]", "every value must be finite")
            steps = [_step(self._pipeline.run, model, array, deadline, priority) for array in tensor]
        results = await _together(steps, self._pipeline.turns())
        return _inferred([np.stack([scored.scores for scored, _ in results])], results)

    async def _infer_graph(
        self, model: ServedGraph, tensors: dict[str, Tensor], deadline: float, priority: int
    ) -> Inferred:
        described = model.described
        batched = described.max_batch_size > 0
        arrays = [np.asarray(tensors[spec.name]) for spec in described.inputs]
        if batched:
            _check_batch([len(array) for array in arrays], described.max_batch_size)
        results = await _together(
            [_step(self._pipeline.run, model, item, deadline, priority) for item in pack(arrays, batched=batched)],
            self._pipeline.turns(),
        )
        try:
            outputs = unpack([scored.scores for scored, _ in results], len(described.outputs), batched=batched)
        except ValueError as error:
            raise InferenceFailedError("the model's answers to the inputs of one request differ in shape") from error
        return _inferred(outputs, results)


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdecimal() and not version.startswith("0")


def _check_batch(sizes: Sequence[int], largest: int) -> None:
    if len(set(sizes)) > 1:
        raise FieldInvalidError("inputs", f"the first axes must be of one length, not {sizes}")
    if sizes[0] > largest:
        raise FieldInvalidError("inputs", f"the batch has {sizes[0]} inputs, at most {largest} are allowed")


def _step(
    way: Callable[..., Awaitable[OneResult]],
    model: Served | ServedGraph,
    payload: Any,
    deadline: float,
    priority: int,
) -> Callable[[], Awaitable[OneResult]]:
    return lambda: way(model, payload, deadline, priority)


async def _together(steps: Sequence[Callable[[], Awaitable[OneResult]]], turns: asyncio.Semaphore) -> list[OneResult]:
    """Takes every step in turn; the first failure, or the caller's leaving, ends them all."""
    if len(steps) == 1:
        return [await steps[0]()]

    async def take(step: Callable[[], Awaitable[OneResult]]) -> OneResult:
        async with turns:
            return await step()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take(step)) for step in steps]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _inferred(outputs: Sequence[NDArray[Any]], results: Sequence[OneResult]) -> Inferred:
    return Inferred(outputs, len(results), max((timing for _, timing in results), key=lambda timing: timing.total_s))
