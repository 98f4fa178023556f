"""Named tensors → named arrays: the Open Inference Protocol's way through the one pipeline.

Each input of a request goes by itself through permits and batching, as those of `Classify` do; what comes back is put
together again. Knows no protobuf.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.service.errors import FieldInvalidError, InferenceFailedError, ModelNotFoundError
from taxon.service.models.model import Model
from taxon.service.models.repository import VERSION, Repository
from taxon.service.open_inference.tensors import Tensor, shown
from taxon.service.pipeline import Pipeline, Timing
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

    def __init__(self, pipeline: Pipeline, repository: Repository) -> None:
        self._pipeline = pipeline
        self._repository = repository

    def find(self, name: str, version: str) -> Model:
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
            return self._repository.find(name, version)
        except ModelNotFoundError:
            if version and not VERSION.fullmatch(version):
                raise FieldInvalidError("model_version", f"must be a positive integer, not {shown(version)}") from None
            raise

    async def infer(self, model: Model, tensors: dict[str, Tensor], deadline: float, priority: int) -> Inferred:
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
        if model.manifest is None:
            return await self._infer_graph(model, tensors, deadline, priority)
        (tensor,) = tensors.values()
        _check_batch([len(tensor)], model.description.max_batch_size)
        steps: list[Callable[[], Awaitable[OneResult]]]
        if isinstance(tensor, tuple):
            steps = [_step(self._pipeline.run, model, encoded, deadline, priority) for encoded in tensor]
        else:
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise FieldInvalidError("inputs[0]", "every value must be finite")
            steps = [_step(self._pipeline.run, model, array, deadline, priority) for array in tensor]
        results = await _together(steps, self._pipeline.turns())
        rows = np.stack([scored.scores for scored, _ in results])
        outputs = np.split(rows, [len(model.manifest.labels)], axis=1)  # the second is empty without familiarity
        return _inferred(outputs[: len(model.description.outputs)], results)

    async def _infer_graph(self, model: Model, tensors: dict[str, Tensor], deadline: float, priority: int) -> Inferred:
        description = model.description
        batched = description.max_batch_size > 0
        arrays = [np.asarray(tensors[spec.name]) for spec in description.inputs]
        if batched:
            _check_batch([len(array) for array in arrays], description.max_batch_size)
        results = await _together(
            [_step(self._pipeline.run, model, item, deadline, priority) for item in pack(arrays, batched=batched)],
            self._pipeline.turns(),
        )
        try:
            outputs = unpack([scored.scores for scored, _ in results], len(description.outputs), batched=batched)
        except ValueError as error:
            raise InferenceFailedError("the model's answers to the inputs of one request differ in shape") from error
        return _inferred(outputs, results)


def _check_batch(sizes: Sequence[int], largest: int) -> None:
    if len(set(sizes)) > 1:
        raise FieldInvalidError("inputs", f"the first axes must be of one length, not {sizes}")
    if sizes[0] > largest:
        raise FieldInvalidError("inputs", f"the batch has {sizes[0]} inputs, at most {largest} are allowed")


def _step(
    way: Callable[..., Awaitable[OneResult]],
    model: Model,
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
