"""Every method of every service behind one guard: what cannot be parsed and what fails is answered by the table of
statuses. grpcio would send an exception's class and text to the caller.
"""

import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from taxon.service.api import statuses
from taxon.service.api.reception import Reception
from taxon.service.errors import FieldInvalidError

KINDS = "unary_unary", "unary_stream", "stream_unary", "stream_stream"
Context = grpc.aio.ServicerContext[Any, Any]
ToStatus = Callable[[Exception, str], status_pb2.Status]
Count = Callable[[str, str], None]
"""Told method and reason of a call that could not even be read."""


def new_id() -> str:
    """Names one call."""
    return os.urandom(16).hex()


def deadline(context: Context, max_call_s: float) -> float:
    """The point of `time.monotonic()` until which a call is worth work."""
    remaining = context.time_remaining()
    return time.monotonic() + (max_call_s if remaining is None else min(remaining, max_call_s))


class Guard:
    """Takes the place of a server where services register; what it registers answers every error."""

    def __init__(
        self,
        server: grpc.aio.Server,
        count: Count,
        to_status: ToStatus = statuses.to_status,
        large: Mapping[str, Reception] = {},
        readers: Mapping[str, Callable[[bytes], Any]] = {},
    ) -> None:
        """Registers nothing yet.

        Args:
            server: Not started.
            count: Counts calls that cannot be read.
            to_status: What an exception means to a caller of these services.
            large: Methods whose messages may be so large that they are received in turns.
            readers: Of requests, in the place of those that were generated, by method.
        """
        self._server = server
        self._count = count
        self._to_status = to_status
        self._large = large
        self._readers = readers
        self.handlers: dict[str, Any] = {}
        """What was registered, by full name."""

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Generated code registers twice; the other one counts."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Registers guarded handlers. Generic ones: those that a server knows by name come before any other."""
        guarded = {name: self._guarded(name, handler) for name, handler in handlers.items()}
        self.handlers |= {f"/{service}/{name}": handler for name, handler in guarded.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))

    def _guarded(self, name: str, handler: Any) -> Any:
        kind = next(kind for kind in KINDS if getattr(handler, kind))
        method, read = getattr(handler, kind), _each_readable if handler.request_streaming else _readable
        if reception := self._large.get(name):
            handler = handler._replace(unary_unary=None, request_streaming=True)
            kind, method = "stream_unary", _received(method, reception)
        guard = self._streams if inspect.isasyncgenfunction(method) else self._answers
        reader = _reading(self._readers.get(name, handler.request_deserializer))
        return handler._replace(request_deserializer=reader, **{kind: guard(name, method, read)})

    def _answers(self, name: str, method: Any, read: Callable[..., Any]) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            try:
                return await method(read(request), context)
            except Exception as error:  # noqa: BLE001 - nothing may escape
                status = self._status(name, error)
            return await statuses.abort(context, status)

        return answer

    def _streams(self, name: str, method: Any, read: Callable[..., Any]) -> Any:
        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in method(read(request), context):
                    yield response
                return
            except Exception as error:  # noqa: BLE001 - nothing may escape
                status = self._status(name, error)
            await statuses.abort(context, status)

        return generate

    def _status(self, name: str, error: Exception) -> status_pb2.Status:
        while isinstance(error, ExceptionGroup):  # of a method that reads and answers at once
            error = error.exceptions[0]
        if isinstance(error, grpc.aio.AbortError):
            raise error  # a method that has chosen its own status
        if isinstance(error, MalformedError):
            self._count(name, statuses.reason_of(error))
        return self._to_status(error, new_id())


class MalformedError(FieldInvalidError):
    """The bytes of a request are no message of its kind."""

    def __init__(self) -> None:
        super().__init__("", "the request cannot be parsed: its bytes are no message of this method's type")


def _reading(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        try:
            return deserialize(body) if deserialize else body
        except DecodeError:
            return MalformedError()  # grpcio would answer by itself: it is raised where the guard stands

    return read


def _received(method: Any, reception: Reception) -> Any:
    async def receive(_: Any, context: Context) -> Any:
        async with reception.message(context) as request:
            return await method(_readable(request), context)

    return receive


def _readable(request: Any) -> Any:
    if isinstance(request, MalformedError):
        raise request
    return request


async def _each_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
