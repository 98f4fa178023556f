"""Refuses calls by their headers when no permit is free, before their pictures have come in.

Receiving a picture costs a tenth of classifying it: a server at twice its capacity would spend a good part of itself
on calls that it refuses. A call that may come in goes the usual way, which costs less than reading a stream.
"""

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import grpc

from taxon.service.api import caller, statuses
from taxon.service.api.guard import Context, ToStatus
from taxon.service.errors import FieldInvalidError
from taxon.service.scheduling.admission import Permits
from taxon.service.telemetry.calls import Calls

# A refusal's text changes with the queue: so long it is repeated, in so many versions that differ in when to retry.
KEPT_S = 0.01
VERSIONS = 8


class EarlyRefusal(grpc.GenericRpcHandler):
    """Stands before the handlers of the methods that run models."""

    def __init__(self, permits: Permits, calls: Calls) -> None:
        """Refuses nothing yet.

        Args:
            permits: Without a free one, nothing comes in.
            calls: Told of refusals.
        """
        self._permits = permits
        self._calls = calls
        self._methods: dict[str, tuple[Any, Any]] = {}

    def stand_before(self, handlers: Mapping[str, Any], to_status: ToStatus) -> None:
        """Takes its place before more handlers, by full name of their methods.

        Args:
            handlers: Of calls with one answer.
            to_status: What an exception means to their callers.
        """
        for name, usual in handlers.items():
            # The same on the wire; but a handler of streams is called before the message has been received.
            looking = grpc.stream_unary_rpc_method_handler(
                self._look(name, usual, to_status), usual.request_deserializer, usual.response_serializer
            )
            self._methods[name] = usual, looking

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for one call; None for other methods."""
        found = self._methods.get(handler_call_details.method)
        if found is None:
            return None
        usual, looking = found
        return usual if self._permits.free_count > 0 else looking

    def _look(
        self, name: str, usual: Any, to_status: ToStatus
    ) -> Callable[[AsyncIterator[Any], Context], Awaitable[Any]]:
        method = name.rpartition("/")[2]
        status = statuses.CODES[to_status(self._permits.refusal(), "").code]
        refusals = self._refusals(to_status)

        async def look(requests: AsyncIterator[Any], context: Context) -> Any:
            """A permit may have become free since."""
            if self._permits.free_count <= 0:
                self._calls.count(method, "", "QUEUE_FULL")
                self._calls.refuse(name, status, "QUEUE_FULL", caller.name.get(), context.invocation_metadata)
                return await context.abort(*next(refusals))
            if usual.stream_unary:
                return await usual.stream_unary(requests, context)
            request = await context.read()  # the iterator would keep it, in a circle of references
            if request is grpc.aio.EOF:
                request = FieldInvalidError("", "the call has no message")  # raised where the guard stands
            return await usual.unary_unary(request, context)

        return look

    def _refusals(self, to_status: ToStatus) -> Iterator[statuses.Packed]:
        """What to tell the next callers: building it for each would cost as much as an answer of a small model."""
        while True:
            until = time.monotonic() + KEPT_S
            told = [to_status(self._permits.refusal(), "") for _ in range(VERSIONS)]
            for packed in itertools.cycle([statuses.packed(status) for status in told]):
                yield packed
                if time.monotonic() > until:
                    break
