"""How a front leaves without losing a call.

A gRPC server that stops cancels every call that comes before its client has heard of it: a bare CANCELLED, which few
retry. What leads clients away without loss is the limit of a connection's age. So a front that leaves accepts no
connection any more, goes on answering until the last one has reached its age or nobody calls, and stops then.
"""

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import grpc

# Nobody has called for so long: nobody is about to.
LULL_S = 0.5
# gRPC ends connections within a tenth of the age that they were given.
AGE_SPREAD = 1.1
PROBES = "/grpc.health.v1.Health/"
DESCRIPTORS = Path("/proc/self/fd")


class Arrivals(grpc.GenericRpcHandler):
    """Stands before all handlers and sees every call come, but handles none."""

    def __init__(self) -> None:
        self._last = -LULL_S

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Notes when it came, unless it is a probe."""
        if not handler_call_details.method.startswith(PROBES):
            self._last = time.monotonic()

    async def cease(self, within_s: float) -> None:
        """Waits until calls have ceased to come, or so long."""
        ends = time.monotonic() + within_s
        while (until := min(self._last + LULL_S, ends)) > (now := time.monotonic()):  # noqa: ASYNC110 - not polled
            await asyncio.sleep(until - now)


def stop_listening(port: int) -> None:
    """Accepts no connection to a port of this process any more. gRPC can do so only together with all the rest."""
    for link in DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            if str(link.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(link.name))) as one:
                    if _listens(one, port):
                        one.shutdown(socket.SHUT_RDWR)


def _listens(one: socket.socket, port: int) -> bool:
    return (
        one.family in (socket.AF_INET, socket.AF_INET6)
        and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        and one.getsockname()[1] == port
    )
