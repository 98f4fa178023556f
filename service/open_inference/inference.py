"""Named tensors → named arrays: the Open Inference Protocol's way through the one pipeline.

Each input of a request goes by itself through permits and batching, as those of `Classify` do; what comes back is put
together again. Knows no protobuf.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.service.errors import FieldInvalidError, InferenceFailedError, ModelNotFoundError
from taxon.service.models.model import Model
from taxon.service.models.repository import VERSION, Repository
from taxon.service.open_inference.tensors import Tensor, shown
from taxon.service.pipeline import Pipeline, Ran
from taxon.service.runtime.packing import pack, unpack
from taxon.service.scheduling.batching import Scored
from taxon.service.telemetry import calls
from taxon.service.workers.executor import Payload

MAX_NAME_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Inferred:
    """The answer to one request."""

    outputs: Sequence[NDArray[Any]]
    """In the order of the model's outputs."""
    ran: Sequence[Ran]
    """The inputs."""


class Inference:
    """Finds models of both kinds and runs them."""

    def __init__(self, pipeline: Pipeline, repository: Repository) -> None:
        self._pipeline = pipeline
        self._repository = repository

    def find(self, name: str, version: str) -> Model:
        """The model that a call names, which is noted.

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
            found = self._repository.find(name, version)
        except ModelNotFoundError:
            if version and not VERSION.fullmatch(version):
                raise FieldInvalidError("model_version", f"must be a positive integer, not {shown(version)}") from None
            raise
        calls.found(found.name, found.version)
        return found

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
        if not isinstance(tensor, tuple) and tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise FieldInvalidError("inputs[0]", "every value must be finite")
        payloads = list(tensor)
        answers = await self._run(model, payloads, deadline, priority)
        rows = np.stack([scored.scores for scored in answers])
        outputs = np.split(rows, [len(model.manifest.labels)], axis=1)  # the second is empty without familiarity
        return Inferred(outputs[: len(model.description.outputs)], [*zip(payloads, answers, strict=True)])

    async def _infer_graph(self, model: Model, tensors: dict[str, Tensor], deadline: float, priority: int) -> Inferred:
        description = model.description
        batched = description.max_batch_size > 0
        arrays = [np.asarray(tensors[spec.name]) for spec in description.inputs]
        if batched:
            _check_batch([len(array) for array in arrays], description.max_batch_size)
        payloads = pack(arrays, batched=batched)
        answers = await self._run(model, payloads, deadline, priority)
        try:
            outputs = unpack([scored.scores for scored in answers], len(description.outputs), batched=batched)
        except ValueError as error:
            raise InferenceFailedError("the model's answers to the inputs of one request differ in shape") from error
        return Inferred(outputs, [*zip(payloads, answers, strict=True)])

    async def _run(self, model: Model, payloads: Sequence[Payload], deadline: float, priority: int) -> list[Scored]:
        """Runs each input in turn; the first failure, or the caller's leaving, ends them all."""
        pipeline = self._pipeline
        if len(payloads) == 1:
            return [await pipeline.run(model, payloads[0], deadline, priority)]
        turns = pipeline.turns()

        async def run(payload: Payload) -> Scored:
            async with turns:
                return await pipeline.run(model, payload, deadline, priority)

        try:
            with self._repository.holds.held(model.number):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(run(payload)) for payload in payloads]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]


def _check_batch(sizes: Sequence[int], largest: int) -> None:
    if len(set(sizes)) > 1:
        raise FieldInvalidError("inputs", f"the first axes must be of one length, not {sizes}")
    if sizes[0] > largest:
        raise FieldInvalidError("inputs", f"the batch has {sizes[0]} inputs, at most {largest} are allowed")
