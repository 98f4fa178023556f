"""Refuses Classify calls by their headers when no permit is free, before their pictures have come in.

Receiving a picture costs a tenth of classifying it: a server at twice its capacity would spend a good part of itself
on calls that it refuses. A call that may come in goes the usual way, which costs less than reading a stream.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from taxon.service.api import statuses
from taxon.service.api.guard import Context, new_id
from taxon.service.errors import FieldInvalidError
from taxon.service.scheduling.admission import Permits
from taxon.service.telemetry.metrics import Metrics

METHOD = "/taxon.v1.ClassificationService/Classify"


class EarlyRefusal(grpc.GenericRpcHandler):
    """Stands before the service's own handler for Classify."""

    def __init__(self, permits: Permits, metrics: Metrics) -> None:
        """Refuses nothing yet.

        Args:
            permits: Without a free one, nothing comes in.
            metrics: Where refusals are counted.
        """
        self._permits = permits
        self._refused = metrics.requests.labels("Classify", "QUEUE_FULL")
        self._usual: Any = None
        self._looking: Any = None

    def stand_before(self, usual: Any) -> None:
        """Sets the handler that answers."""
        self._usual = usual
        # The same on the wire; but a handler of streams is called before the message has been received.
        self._looking = grpc.stream_unary_rpc_method_handler(
            self._look, usual.request_deserializer, usual.response_serializer
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for one call; None for other methods."""
        if handler_call_details.method != METHOD:
            return None
        return self._usual if self._permits.free_count > 0 else self._looking

    async def _look(self, requests: AsyncIterator[Any], context: Context) -> Any:
        if self._permits.free_count <= 0:
            self._refused.inc()
            return await statuses.abort(context, statuses.to_status(self._permits.refusal(), new_id()))
        async for request in requests:
            return await self._usual.unary_unary(request, context)
        empty = FieldInvalidError("input", "the call has no message")
        return await statuses.abort(context, statuses.to_status(empty, new_id()))
