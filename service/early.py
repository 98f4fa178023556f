"""Refuses Classify calls by their headers when the queue is long, before their pictures have come in.

Receiving a picture costs a tenth of classifying it: a server at twice its capacity would spend a third of itself on
calls that it refuses. Only the queue's length and the call's deadline are known here; everything else, and every
call while the queue is short, goes the usual way.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from service import statuses
from service.errors import QueueFullError
from service.lanes import MARGIN, retry_delay_s
from service.metrics import Metrics
from service.pipeline import Permits
from taxon.v1 import classification_service_pb2 as pb

METHOD = "/taxon.v1.ClassificationService/Classify"
# A queue of a tenth of a second is no reason to look at a call twice.
LONG_S = 0.1

Context = grpc.aio.ServicerContext[Any, Any]
Classify = Callable[[pb.ClassifyRequest, Context], Awaitable[pb.ClassifyResponse]]


class EarlyRefusal(grpc.GenericRpcHandler):
    """Stands before the service's own handler for Classify."""

    def __init__(
        self,
        classify: Classify,
        permits: Permits,
        predicted_wait_s: Callable[[], float],
        max_call_s: float,
        metrics: Metrics,
    ) -> None:
        """Refuses nothing yet.

        Args:
            classify: The method that answers.
            permits: Without a free one, nothing comes in.
            predicted_wait_s: How long a new input would wait.
            max_call_s: Ceiling of a call's time.
            metrics: Where refusals are counted.
        """
        self._classify = classify
        self._permits = permits
        self._predicted_wait_s = predicted_wait_s
        self._max_call_s = max_call_s
        self._refused = metrics.requests.labels("Classify", "QUEUE_FULL")
        codec = pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
        self._usual = grpc.unary_unary_rpc_method_handler(classify, *codec)
        # The same on the wire; but a handler of streams is called before the message has been received.
        self._looking = grpc.stream_unary_rpc_method_handler(self._look, *codec)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for one call; None for other methods."""
        if handler_call_details.method != METHOD:
            return None
        is_short = self._permits.free_count and self._predicted_wait_s() < LONG_S
        return self._usual if is_short else self._looking

    async def _look(self, requests: AsyncIterator[pb.ClassifyRequest], context: Context) -> pb.ClassifyResponse:
        remaining = context.time_remaining()
        remaining_s = self._max_call_s if remaining is None else min(remaining, self._max_call_s)
        wait_s = MARGIN * self._predicted_wait_s()
        if not self._permits.free_count or wait_s > remaining_s:
            self._refused.inc()
            overhang_s = wait_s - remaining_s if self._permits.free_count else wait_s
            error = QueueFullError(self._permits.max_count, retry_delay_s(overhang_s))
            return await statuses.abort(context, statuses.to_status(error, uuid.uuid4().hex))
        async for request in requests:
            return await self._classify(request, context)
        return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
