"""A second call for an answer that is late, to whichever server is next: the first answer counts, the other call is
cancelled (Dean and Barroso, "The tail at scale", 2013). gRPC's own `hedgingPolicy` is not built into its C core.

At most one call in ten is doubled, so that a service that is slow for all does not get twice the load.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

CALLS_PER_HEDGE = 10
MOST_SAVED = 100
"""Calls that count at most: of so many in a row a tenth may be doubled at once."""


class Hedging:
    """When to call twice. Safe to share between threads.

    Args:
        after_s: Seconds without an answer; a good choice is the 95th percentile of what answers take.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._saved = MOST_SAVED
        self._lock = threading.Lock()

    def blocking(
        self, method: "grpc.UnaryUnaryMultiCallable[Any, Any]", request: Any, timeout_s: float, metadata: Any
    ) -> Any:
        """Calls a method of a blocking stub, perhaps twice.

        Raises:
            grpc.RpcError: Neither call was answered; the first one's.
        """
        until = time.monotonic() + timeout_s
        self._count()
        first = method.future(request, timeout=timeout_s, metadata=metadata)
        try:
            return first.result(self._after_s)
        except grpc.FutureTimeoutError:
            if not self._allows():
                return first.result()
        second = method.future(request, timeout=max(until - time.monotonic(), 0.0), metadata=metadata)
        done = threading.Semaphore(0)
        for call in (first, second):
            call.add_done_callback(lambda _: done.release())
        try:
            for _ in range(2):
                done.acquire()
                answered = [call for call in (first, second) if call.done() and call.code() is grpc.StatusCode.OK]
                if answered:
                    return answered[0].result()
            return first.result()
        finally:
            first.cancel()
            second.cancel()

    async def awaited(self, method: Callable[..., Any], request: Any, timeout_s: float, metadata: Any) -> Any:
        """The same for a stub of asyncio."""
        until = time.monotonic() + timeout_s
        self._count()

        async def call(seconds: float) -> Any:
            return await method(request, timeout=seconds, metadata=metadata)

        calls = [asyncio.ensure_future(call(timeout_s))]
        try:
            done, pending = await asyncio.wait(calls, timeout=self._after_s)
            if pending and self._allows():
                calls.append(asyncio.ensure_future(call(max(until - time.monotonic(), 0.0))))
            while pending := {one for one in calls if not one.done()}:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(one.exception() is None for one in done):
                    break
            answered = [one for one in calls if one.done() and one.exception() is None]
            return (answered or calls)[0].result()
        finally:
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _count(self) -> None:
        with self._lock:
            self._saved = min(self._saved + 1, MOST_SAVED)

    def _allows(self) -> bool:
        with self._lock:
            if self._saved < CALLS_PER_HEDGE:
                return False
            self._saved -= CALLS_PER_HEDGE
            return True
