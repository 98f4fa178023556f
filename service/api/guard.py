"""Every method of every service behind one guard: what cannot be parsed and what fails is answered by the table of
statuses. grpcio would send an exception's class and text to the caller.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from taxon.service.api import caller, statuses
from taxon.service.api.reception import Reception
from taxon.service.errors import FieldInvalidError
from taxon.service.telemetry.calls import Call, Calls

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
KINDS = "unary_unary", "unary_stream", "stream_unary", "stream_stream"
Context = grpc.aio.ServicerContext[Any, Any]
R = TypeVar("R")
ToStatus = Callable[[Exception, str], status_pb2.Status]


def deadline(context: Context, max_call_s: float) -> float:
    """The point of `time.monotonic()` until which a call is worth work."""
    remaining = context.time_remaining()
    return time.monotonic() + (max_call_s if remaining is None else min(remaining, max_call_s))


class Guard:
    """Takes the place of a server where services register; what it registers answers every error."""

    def __init__(
        self,
        server: grpc.aio.Server,
        calls: Calls,
        to_status: ToStatus = statuses.to_status,
        large: Mapping[str, Reception] = {},
        readers: Mapping[str, Callable[[bytes], Any]] = {},
    ) -> None:
        """Registers nothing yet.

        Args:
            server: Not started.
            calls: Told of every call.
            to_status: What an exception means to a caller of these services.
            large: Methods whose messages may be so large that they are received in turns.
            readers: Of requests, in the place of those that were generated, by method.
        """
        self._server = server
        self._calls = calls
        self._to_status = to_status
        self._large = large
        self._readers = readers
        self.handlers: dict[str, Any] = {}
        """What was registered, by full name."""

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Generated code registers twice; the other one counts."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Registers guarded handlers. Generic ones: those that a server knows by name come before any other."""
        guarded = {name: self._guarded(service, name, handler) for name, handler in handlers.items()}
        self.handlers |= {f"/{service}/{name}": handler for name, handler in guarded.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))

    def _guarded(self, service: str, name: str, handler: Any) -> Any:
        kind = next(kind for kind in KINDS if getattr(handler, kind))
        method, read = getattr(handler, kind), _each_readable if handler.request_streaming else _readable
        if reception := self._large.get(name):
            handler = handler._replace(unary_unary=None, request_streaming=True)
            kind, method = "stream_unary", _received(method, reception)
        guard = self._streams if inspect.isasyncgenfunction(method) else self._answers
        reader = _reading(self._readers.get(name, handler.request_deserializer))
        return handler._replace(request_deserializer=reader, **{kind: guard(f"{service}/{name}", method, read)})

    def _answers(self, name: str, method: Any, read: Callable[..., Any]) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            call = self._calls.begin(name, context)
            try:
                response = await method(read(request), context)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - nothing may escape
                status = self._failed(call, error)
            else:
                self._calls.end(call, grpc.StatusCode.OK, "", caller.name.get())
                return response
            return await statuses.abort(context, status)

        return answer

    def _streams(self, name: str, method: Any, read: Callable[..., Any]) -> Any:
        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            call = self._calls.begin(name, context)
            try:
                async for response in method(read(request), context):
                    yield response
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - nothing may escape
                status = self._failed(call, error)
            else:
                self._calls.end(call, grpc.StatusCode.OK, "", caller.name.get())
                return
            await statuses.abort(context, status)

        return generate

    def _failed(self, call: Call, error: BaseException) -> status_pb2.Status:
        """What the caller is told; raises what ends a call by itself."""
        while isinstance(error, ExceptionGroup):  # of a method that reads and answers at once
            error = error.exceptions[0]
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            # The caller has left, or a method has chosen its own status.
            left = isinstance(error, asyncio.CancelledError)
            code = grpc.StatusCode.CANCELLED if left else statuses.CODES[int(call.context.code())]
            self._calls.end(call, code, "", caller.name.get())
            raise error
        status = self._to_status(error, call.request_id)
        self._calls.end(call, statuses.CODES[status.code], statuses.reason_of(error), caller.name.get())
        return status


async def entry(calls: Calls, work: Awaitable[R], to_status: ToStatus = statuses.to_status) -> R | status_pb2.Status:
    """Works on one entry of this task's call, whose failure is its own. Must be awaited on a task of its own.

    Args:
        calls: Told of it.
        work: Gives its answer.
        to_status: What an exception means to the caller.

    Returns:
        The answer, or what is said in its place.
    """
    begun = calls.entry()
    try:
        answer = await work
    except Exception as error:  # noqa: BLE001 - nobody else's
        status = to_status(error, begun.request_id)
        calls.end_entry(begun, statuses.CODES[status.code], statuses.reason_of(error), caller.name.get())
        return status
    except asyncio.CancelledError:
        calls.end_entry(begun, grpc.StatusCode.CANCELLED, "", caller.name.get())
        raise
    calls.end_entry(begun, grpc.StatusCode.OK, "", caller.name.get())
    return answer


class UnknownMethods(grpc.GenericRpcHandler):
    """Stands behind all services: gRPC would refuse what no one handles, but tell nobody."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        """A handler that refuses, whatever kind of call it is."""
        return grpc.stream_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _: Any, context: Context) -> NoReturn:
        self._calls.count("", "", "UNIMPLEMENTED")
        self._calls.refuse("", UNIMPLEMENTED, "", caller.name.get(), context.invocation_metadata)
        await context.abort(UNIMPLEMENTED, "Method not found!")


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
    if isinstance(request, FieldInvalidError):
        raise request
    return request


async def _each_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
