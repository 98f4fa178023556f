"""What is known of a call from its arrival to its end, for the log and for traces. A call runs in a task of its
own, and so do its inputs: whoever works on one finds it in `current`.
"""

import os
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from taxon.service.telemetry.access_log import AccessLog
from taxon.service.telemetry.tracing import Parent, Span, Tracing

Count = Callable[[str, str, str], None]
"""Told method, model and outcome of a call, see `Metrics.count_request`."""
Metadata = Iterable[tuple[str, str | bytes]] | None
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""W3C Trace Context, level 1: version, trace, parent, flags."""
WATCH = "grpc.health.v1.Health/Watch"


def parent_of(metadata: Metadata) -> Parent | None:
    """The span that a call is part of, None if it names none, or names it wrongly."""
    for name, value in metadata or ():
        if name == "traceparent" and isinstance(value, str) and (found := TRACEPARENT.fullmatch(value)):
            return Parent(found[1], found[2], bool(int(found[3], 16) & 1))
    return None


@dataclass(slots=True, eq=False)
class Call:
    """One call that is being answered, or one entry of one."""

    method: str
    """Service and method."""
    context: Any
    """gRPC's."""
    request_id: str
    began_at: float
    """Point of `time.monotonic()`."""
    span: Span | None = None
    """Of the call, if it is sampled."""
    model: str = ""
    """Of those that are served; empty until it is found."""
    version: int = 0
    has_entries: bool = False
    """Whether these are counted in its place."""


current: ContextVar[Call | None] = ContextVar("call", default=None)


def new_id() -> str:
    """Names one call."""
    return os.urandom(16).hex()


def found(model: str, version: int) -> None:
    """Notes which model answers the call of this task."""
    call = current.get()
    if call is not None:
        call.model, call.version = model, version


def span() -> Span | None:
    """That of the call of this task, if it is sampled."""
    call = current.get()
    return call.span if call else None


class Calls:
    """The calls of one process that speaks gRPC."""

    def __init__(self, access: AccessLog, count: Count, tracing: Tracing | None = None) -> None:
        """None has come yet.

        Args:
            access: Has a line for some.
            count: Counts every one.
            tracing: Has a span for some; None: for none.
        """
        self._access = access
        self.count = count
        self._tracing = tracing

    def begin(self, method: str, context: Any) -> Call:
        """A call has come. Must be called on its own task."""
        call = Call(method, context, new_id(), time.monotonic())
        if self._tracing:
            call.span = self._tracing.begin(method, parent_of(context.invocation_metadata()))
        current.set(call)
        return call

    def entry(self) -> Call:
        """One of the entries of this task's call is worked on. Must be called on a task of its own."""
        whole = current.get()
        if whole is None:
            raise RuntimeError("an entry without a call")
        whole.has_entries = True
        entry = Call(whole.method, whole.context, new_id(), time.monotonic(), whole.span)
        current.set(entry)
        return entry

    def end(self, call: Call, status: grpc.StatusCode, reason: str, caller: str) -> None:
        """A call has ended.

        Args:
            call: Begun.
            status: What its caller was told.
            reason: Of the error; empty if there is none, or none of ours.
            caller: As the operator names it.
        """
        if call.span:
            call.span.end(status.name, status.value[0], reason, call.model, call.version)
        if not call.has_entries:
            self._tally(call, status, reason)
        # A Watch goes on until its client leaves: that is no failure of anybody's.
        usual = status is grpc.StatusCode.OK or (call.method == WATCH and status is grpc.StatusCode.CANCELLED)
        if self._access.wants_answered() if usual else self._access.wants_failed():
            self._write(call, status, reason, caller)

    def end_entry(self, entry: Call, status: grpc.StatusCode, reason: str, caller: str) -> None:
        """The same, of an entry; its call goes on, and has the line of those that were answered or left."""
        self._tally(entry, status, reason)
        if reason and self._access.wants_failed():
            self._write(entry, status, reason, caller)

    def _tally(self, call: Call, status: grpc.StatusCode, reason: str) -> None:
        self.count(call.method.rpartition("/")[2], call.model, reason or status.name)

    def _write(self, call: Call, status: grpc.StatusCode, reason: str, caller: str) -> None:
        self._access.write(
            status.name,
            reason=reason,
            method=call.method,
            model=call.model,
            version=call.version,
            milliseconds=round((time.monotonic() - call.began_at) * 1e3, 3),
            caller=caller,
            request_id=call.request_id,
            trace_id=_trace_id(call.context.invocation_metadata, call.span),
        )

    def refuse(
        self, method: str, status: grpc.StatusCode, reason: str, caller: str, metadata: Callable[[], Metadata]
    ) -> None:
        """A call was refused before anybody looked at it; who refuses it counts it."""
        if self._access.wants_failed():
            facts = {"method": method.lstrip("/"), "caller": caller, "trace_id": _trace_id(metadata)}
            self._access.write(status.name, reason=reason, **facts)

    def close(self) -> None:
        """Sends what is left of the traces, for a little while. Blocks."""
        if self._tracing:
            self._tracing.close()


def _trace_id(metadata: Callable[[], Metadata], own: Span | None = None) -> str:
    if own:
        return own.trace_id
    parent = parent_of(metadata())
    return parent.trace_id if parent else ""
