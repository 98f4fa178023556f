"""Refuses Classify calls by their headers when no permit is free, before their pictures have come in.

Receiving a picture costs a tenth of classifying it: a server at twice its capacity would spend a good part of itself
on calls that it refuses. A call that may come in goes the usual way, which costs less than reading a stream.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from taxon.service.api import statuses
from taxon.service.api.classification import ClassificationService
from taxon.service.api.request_view import split
from taxon.service.errors import FieldInvalidError, QueueFullError
from taxon.service.pipeline import Permits
from taxon.service.scheduling.admission import retry_delay_s
from taxon.service.telemetry.metrics import Metrics
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import add_ClassificationServiceServicer_to_server

METHOD = "/taxon.v1.ClassificationService/Classify"

Context = grpc.aio.ServicerContext[Any, Any]
Request = tuple[pb.ClassifyRequest, memoryview | None]
Classify = Callable[[Request, Context], Awaitable[pb.ClassifyResponse]]


def add_to_server(
    servicer: ClassificationService,
    server: grpc.aio.Server,
    permits: Permits,
    predicted_wait_s: Callable[[], float],
    metrics: Metrics,
) -> None:
    """Registers the service, with `EarlyRefusal` before it."""
    server.add_generic_rpc_handlers((EarlyRefusal(servicer.Classify, permits, predicted_wait_s, metrics),))
    add_ClassificationServiceServicer_to_server(servicer, _Unregistered(server))


class _Unregistered:
    """A server on which generated code registers generic handlers only: those that it registers by name are found
    before any other, however early that has been added.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Leaves them out."""


class EarlyRefusal(grpc.GenericRpcHandler):
    """Stands before the service's own handler for Classify."""

    def __init__(
        self,
        classify: Classify,
        permits: Permits,
        predicted_wait_s: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        """Refuses nothing yet.

        Args:
            classify: The method that answers.
            permits: Without a free one, nothing comes in.
            predicted_wait_s: How long a new input would wait.
            metrics: Where refusals are counted.
        """
        self._classify = classify
        self._permits = permits
        self._predicted_wait_s = predicted_wait_s
        self._refused = metrics.requests.labels("Classify", "QUEUE_FULL")
        codec = split, pb.ClassifyResponse.SerializeToString
        self._usual = grpc.unary_unary_rpc_method_handler(classify, *codec)
        # The same on the wire; but a handler of streams is called before the message has been received.
        self._looking = grpc.stream_unary_rpc_method_handler(self._look, *codec)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for one call; None for other methods."""
        if handler_call_details.method != METHOD:
            return None
        return self._usual if self._permits.free_count else self._looking

    async def _look(self, requests: AsyncIterator[Request], context: Context) -> pb.ClassifyResponse:
        if not self._permits.free_count:
            self._refused.inc()
            error = QueueFullError(self._permits.max_count, retry_delay_s(self._predicted_wait_s()))
            return await statuses.abort(context, statuses.to_status(error, os.urandom(16).hex()))
        async for request in requests:
            return await self._classify(request, context)
        empty = FieldInvalidError("input", "the call has no message")
        return await statuses.abort(context, statuses.to_status(empty, os.urandom(16).hex()))
