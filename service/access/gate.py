"""The one place that every call of every service passes before anything else looks at it: who calls, and whether that
caller may. It knows what a call is named and who makes it, never what is asked.

By key a call is let in or refused before its message has come in; by certificate before its message is looked at, since
gRPC tells of certificates no sooner.
"""

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from taxon.service.access.callers import Caller, Callers, Group, Known
from taxon.service.access.usage import CallerLimits, Usage
from taxon.service.api import statuses
from taxon.service.api.caller import method as called
from taxon.service.api.caller import name as caller_name
from taxon.service.errors import NotAllowedError, ServiceError, UnauthenticatedError
from taxon.service.scheduling.board import Board

OPEN, ANY = "open", "any"
"""Everybody may; everybody who is known may."""
Need = Group | str
INFERENCE = "inference.GRPCInferenceService"
NEEDS: dict[str, Need] = {
    "taxon.v1.ClassificationService": "classify",
    "taxon.v1.FeedbackService": "feedback",
    "taxon.v1.ExplanationService": "explain",
    "taxon.v1.ModelAdminService": "admin",
    INFERENCE: "inference",
    f"/{INFERENCE}/RepositoryModelLoad": "admin",
    f"/{INFERENCE}/RepositoryModelUnload": "admin",
    # Balancers and kubelets have no keys. They learn whether this server may be sent traffic, nothing about models.
    "grpc.health.v1.Health": OPEN,
    f"/{INFERENCE}/ServerLive": OPEN,
    f"/{INFERENCE}/ServerReady": OPEN,
    "grpc.reflection.v1.ServerReflection": ANY,
    "grpc.reflection.v1alpha.ServerReflection": ANY,
}
"""What a caller must be allowed, by service, or by the full name of a method that differs from its service."""
UNLISTED: Group = "admin"
"""Of services that are not in the table: who forgets to enter one opens nothing."""
UNKNOWN_CALLER = statuses.packed(statuses.to_status(UnauthenticatedError(), ""))
"""The same for all whom nobody knows: to build it for each takes a tenth of a refusal's time."""
BEARER = "bearer "
KINDS = "unary_unary", "unary_stream", "stream_unary", "stream_stream"
Context = grpc.aio.ServicerContext[Any, Any]
Tell = Callable[[grpc.StatusCode, str, str, Context], None]
"""Told of a refusal: status, reason, the name of the caller, which is empty if nobody knows, and gRPC's context."""

_admitted: ContextVar[Usage | None] = ContextVar("admitted", default=None)
"""Who makes the call of this task."""


def need_of(method: str) -> Need:
    """What a caller of a method, by its full name, must be allowed."""
    found = NEEDS.get(method)
    return found or NEEDS.get(method[1:].partition("/")[0], UNLISTED)


class Gate(grpc.aio.ServerInterceptor):
    """Stands before all services of a server; give it to `grpc.aio.server(interceptors=…)`."""

    def __init__(
        self, limits: CallerLimits, tell: Tell, board: Board, front: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Lets nobody in yet.

        Args:
            limits: Of callers for whom the file says nothing else.
            tell: Counts and logs refusals.
            board: What all fronts count on.
            front: Number of this one.
            clock: In seconds.
        """
        self._limits = limits
        self._tell = tell
        self._board = board
        self._front = front
        self._clock = clock
        self._known = Known(())
        self._usages: dict[str, Usage] = {}
        self._seen: dict[tuple[Any, Need], Any] = {}
        # Of whatever kind a method is, so it is on the wire; and no message need have come in.
        self._turning_away: Any = grpc.stream_unary_rpc_method_handler(self._turn_away)

    def let_in(self, callers: Callers, places: Mapping[str, int]) -> None:
        """Lets these in and nobody else, from the next call on. Calls that are under way go on.

        Args:
            callers: As the file has them.
            places: Of each on the board, by name.
        """
        usages = {}
        for caller in callers.callers:
            usage = self._usages.get(caller.name)
            if usage is None:
                usage = Usage(caller, self._limits, self._board, self._front, places[caller.name], self._clock())
            usage.allow(caller, self._limits)
            usages[caller.name] = usage
        self._known, self._usages = Known(callers.callers), usages

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Finds the handler of a call, or one that refuses it."""
        need = need_of(handler_call_details.method)
        if need == OPEN:
            return await continuation(handler_call_details)
        called.set(handler_call_details.method)
        key = key_of(handler_call_details.invocation_metadata)
        if key is None and self._known.asks_certificates:
            return self._watched(await continuation(handler_call_details) or UNKNOWN_METHOD, need)
        caller = None if key is None else self._known.by_key(key)
        try:
            usage = self._admit(caller, need)
        except ServiceError as error:
            return self._refusing(error, caller)
        caller_name.set(usage.caller.name)
        handler = await continuation(handler_call_details)
        if handler is None or usage.max_concurrent_calls is None:
            return handler
        _admitted.set(usage)
        return self._watched(handler, need)

    def _admit(self, caller: Caller | None, need: Need) -> Usage:
        if caller is None:
            raise UnauthenticatedError
        if need != ANY and need not in caller.groups:
            raise NotAllowedError(need)
        usage = self._usages[caller.name]
        usage.take(self._clock())
        return usage

    def _refusing(self, error: ServiceError, caller: Caller | None) -> Any:
        if caller is None:
            return self._turning_away

        async def refuse(_: Any, context: Context) -> NoReturn:
            await self._refuse(error, caller, context)

        return grpc.stream_unary_rpc_method_handler(refuse)

    async def _turn_away(self, _: Any, context: Context) -> NoReturn:
        """Refuses one whom nobody knows."""
        code, *_ = UNKNOWN_CALLER
        self._tell(code, "UNAUTHENTICATED", "", context)
        await context.abort(*UNKNOWN_CALLER)

    async def _refuse(self, error: ServiceError, caller: Caller | None, context: Context) -> NoReturn:
        if caller is None:
            await self._turn_away(None, context)
        status = statuses.to_status(error, "")
        self._tell(statuses.CODES[status.code], statuses.reason_of(error), caller.name, context)
        await statuses.abort(context, status)

    def _watched(self, handler: Any, need: Need) -> Any:
        """The same handler, behind what can be seen only once it is called: the certificate, and when it ends."""
        watched = self._seen.get((handler, need))
        if watched is None:
            kind = next(kind for kind in KINDS if getattr(handler, kind))
            method = getattr(handler, kind)
            watch = self._stream if inspect.isasyncgenfunction(method) else self._answer
            watched = self._seen[handler, need] = handler._replace(**{kind: watch(method, need)})
        return watched

    def _answer(self, method: Any, need: Need) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            usage = await self._enter(context, need)
            with usage.call():
                return await method(request, context)

        return answer

    def _stream(self, method: Any, need: Need) -> Any:
        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            usage = await self._enter(context, need)
            with usage.call():
                async for response in method(request, context):
                    yield response

        return generate

    async def _enter(self, context: Context, need: Need) -> Usage:
        usage, caller = _admitted.get(), None
        try:
            if usage is None:
                caller = self._known.by_certificate(context.auth_context())
                usage = self._admit(caller, need)
                caller_name.set(usage.caller.name)
                return usage
            caller = usage.caller
            usage.check_room()  # while its message came, others may have
        except ServiceError as error:
            await self._refuse(error, caller, context)
        return usage


async def _unknown_method(_: Any, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


UNKNOWN_METHOD: Any = grpc.stream_unary_rpc_method_handler(_unknown_method)


def key_of(metadata: Sequence[tuple[str, str | bytes]] | None) -> str | None:
    """The key that a call brings, None if it brings none."""
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str):
            return key_in(value)
    return None


def key_in(authorization: str) -> str | None:
    """The key in what a caller says as its `authorization`."""
    bearer = authorization[: len(BEARER)].lower() == BEARER
    return authorization[len(BEARER) :].strip() if bearer else None
