"""The Open Inference Protocol in and out: protobuf request → domain call → protobuf response.

Triton's superset of it, over the same pipeline as `taxon.v1`. Knows messages; decides nothing about models.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.rpc import status_pb2

from taxon import __version__
from taxon.inference import open_inference_service_pb2 as pb
from taxon.inference import open_inference_service_pb2_grpc as pb_grpc
from taxon.service.api import guard, statuses
from taxon.service.api.guard import Context, deadline
from taxon.service.errors import (
    FieldInvalidError,
    ModelNotFoundError,
    NotServingError,
    QueueFullError,
    UnsupportedError,
)
from taxon.service.models.config_pbtxt import PLATFORM
from taxon.service.models.repository import Repository
from taxon.service.models.routing import Routed, names_none
from taxon.service.open_inference.inference import Inference
from taxon.service.open_inference.messages import (
    infer_response,
    model_config,
    model_statistics,
    tensor_metadata,
)
from taxon.service.open_inference.parameters import read_outputs, read_parameters
from taxon.service.open_inference.tensors import read_inputs
from taxon.service.pipeline import Pipeline
from taxon.service.telemetry import calls
from taxon.service.telemetry.calls import Calls
from taxon.service.telemetry.statistics import Figures, ReadStatistics

SERVICE = "inference.GRPCInferenceService"
SERVER_NAME = "taxon"
EXTENSIONS = (
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
# Requests of one stream that are worked on at once.
STREAM_WINDOW = 32
FINAL_RESPONSE = "triton_final_response"


class Control(Protocol):
    """Loads and unloads models."""

    async def load(self, name: str) -> None:
        """Loads what is new in a model's folder."""
        ...

    async def unload(self, name: str) -> None:
        """Ends the serving of a model."""
        ...


@dataclass(frozen=True, slots=True)
class Limit:
    """What an operator allows."""

    call_s: float
    """Ceiling of a call's time."""
    queued_count: int
    """Inputs in the server at once; only reported."""
    model_control: bool
    """Whether callers may load and unload models."""


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """As `statuses`, but a full queue is UNAVAILABLE: that is what this protocol's clients retry on."""
    status = statuses.to_status(error, request_id)
    if isinstance(error, QueueFullError):
        status.code = grpc.StatusCode.UNAVAILABLE.value[0]
    return status


class OpenInferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The protocol's service."""

    def __init__(
        self,
        inference: Inference,
        pipeline: Pipeline,
        repository: Repository,
        control: Control,
        told: Calls,
        read_statistics: ReadStatistics,
        is_ready: Callable[[], bool],
        limit: Limit,
    ) -> None:
        self._inference = inference
        self._pipeline = pipeline
        self._repository = repository
        self._control = control
        self._calls = told
        self._read_statistics = read_statistics
        self._is_ready = is_ready
        self._limit = limit

    async def ServerLive(self, _: pb.ServerLiveRequest, __: Context) -> pb.ServerLiveResponse:  # noqa: N802
        """Whoever reads this, lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: pb.ServerReadyRequest, __: Context) -> pb.ServerReadyResponse:  # noqa: N802
        """The same answer as the health service's."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ServerMetadata(self, _: pb.ServerMetadataRequest, __: Context) -> pb.ServerMetadataResponse:  # noqa: N802
        """Names the extensions that work."""
        extensions = (*EXTENSIONS, *(CONTROL_EXTENSIONS if self._limit.model_control else ()))
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=extensions)

    async def ModelReady(self, request: pb.ModelReadyRequest, _: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """A model that is known but cannot answer is not ready; one that is not known is an error."""
        try:
            self._inference.find(request.name, request.version)
        except NotServingError:
            return pb.ModelReadyResponse(ready=False)
        except ModelNotFoundError:
            if not self._repository.knows(request.name, request.version):
                raise
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _: Context) -> pb.ModelMetadataResponse:  # noqa: N802
        """Of an input that may be sent in two ways, the tensor of numbers is named."""
        description = self._inference.find(request.name, request.version).description
        return pb.ModelMetadataResponse(
            name=description.name,
            versions=[str(version) for version in self._repository.versions(description.name)],
            platform=PLATFORM,
            inputs=tensor_metadata(description.inputs),
            outputs=tensor_metadata(description.outputs),
            properties={"execution_provider": description.provider, "variant": description.variant},
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """Runs a model on one request."""
        return await self._infer(request, deadline(context, self._limit.call_s))

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        """Works on several requests at once, and answers in their order."""
        outcomes: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue(STREAM_WINDOW)
        # A TaskGroup, so that a caller who leaves takes every request along.
        async with asyncio.TaskGroup() as group:

            async def read() -> None:
                async for request in requests:
                    await outcomes.put(
                        group.create_task(self._stream_outcome(request, deadline(context, self._limit.call_s)))
                    )
                await outcomes.put(None)

            group.create_task(read())
            while (outcome := await outcomes.get()) is not None:
                await context.write(await outcome)

    async def ModelConfig(self, request: pb.ModelConfigRequest, _: Context) -> pb.ModelConfigResponse:  # noqa: N802
        """Describes how a model is served."""
        description = self._inference.find(request.name, request.version).description
        return pb.ModelConfigResponse(config=model_config(description, self._limit.queued_count, self._limit.call_s))

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, _: Context
    ) -> pb.ModelStatisticsResponse:
        """The figures of one version, of all versions of a model, or of all models."""
        models = self._repository.listing()
        if request.name:
            found = self._inference.find(request.name, request.version)
            wanted = [found.version] if request.version else self._repository.versions(request.name)
            models = [model for model in models if model.name == request.name and model.version in wanted]
        figures = await self._read_statistics()
        return pb.ModelStatisticsResponse(
            model_stats=[model_statistics(model, figures.get(model.number, Figures())) for model in models]
        )

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, _: Context
    ) -> pb.RepositoryIndexResponse:
        """Lists every version that is served or was tried, and what else lies in the folder."""
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=state.name,
                    version=str(state.version or ""),
                    state=state.state,
                    reason=state.reason,
                )
                for state in self._repository.index()
                if state.state == "READY" or not request.ready
            ]
        )

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, _: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Loads what is new in a model's folder."""
        name = self._controlled(request)
        if request.parameters:
            raise UnsupportedError("a model's files and configuration are read from the repository, never from a call")
        await self._control.load(name)
        calls.found(name, 0)
        return pb.RepositoryModelLoadResponse(model_name=name, is_loaded=True)

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, _: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Ends the serving of a model."""
        name = self._controlled(request)
        await self._control.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, is_unloaded=True)

    def _controlled(self, request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
        """The model's name, from Triton's field or from KServe's."""
        if not self._limit.model_control:
            raise UnsupportedError(
                "model control is off; the operator may start the server with --model-control explicit"
            )
        if not (name := request.model_name or request.repository_name):
            raise FieldInvalidError("model_name", "must be set")
        if self._repository.knows(name, ""):
            calls.found(name, 0)
        return name

    async def _stream_outcome(self, request: pb.ModelInferRequest, until: float) -> pb.ModelStreamInferResponse:
        response = await guard.entry(self._calls, self._infer(request, until), to_status)
        if not isinstance(response, pb.ModelInferResponse):
            failed = pb.ModelInferResponse(id=request.id)
            return pb.ModelStreamInferResponse(error_message=response.message, infer_response=failed)
        response.parameters[FINAL_RESPONSE].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: pb.ModelInferRequest, until: float) -> pb.ModelInferResponse:
        arrived = time.monotonic()
        found = self._inference.find(request.model_name, request.model_version)
        routed = Routed(found, "default" if names_none(request.model_version) else "named")
        try:
            wishes = read_parameters(request.parameters)
            routed = self._pipeline.route(found, request.model_version, wishes.routing_key, tensors=True)
            model, description = routed.model, routed.model.description
            wanted = read_outputs(request, description.outputs)
            if wishes.timeout_s is not None:
                until = min(until, arrived + wishes.timeout_s)
            tensors = read_inputs(request, description.inputs)
            inferred = await self._inference.infer(model, tensors, until, wishes.priority)
            encoding = time.monotonic()
            response = infer_response(request.id, description, inferred, wanted)
        except (Exception, asyncio.CancelledError) as error:
            self._pipeline.failed(routed, error, time.monotonic() - arrived, until)
            raise
        now = time.monotonic()
        self._pipeline.answered(routed, inferred.ran, now - arrived, now - encoding)
        return response
