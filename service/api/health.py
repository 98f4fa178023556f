"""Readiness, told in the words of `grpc.health.v1`, and the probe that asks for it.

Knows whether the server may be sent traffic; why not is the log's business.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon import connection, ranges
from taxon.mistaken import in_words

SERVICES = (
    "",
    "taxon.v1.ClassificationService",
    "taxon.v1.FeedbackService",
    "taxon.v1.ExplanationService",
    "inference.GRPCInferenceService",
)
Response = health_pb2.HealthCheckResponse
SERVING = Response.SERVING
NOT_SERVING = Response.NOT_SERVING
Context = grpc.aio.ServicerContext[Any, Any]
PAUSE_S = 0.2
ANY_ADDRESS = ("[::]", "0.0.0.0")  # noqa: S104 - compared with, not bound


class Readiness(health_pb2_grpc.HealthServicer):
    """The health service: one answer for every service name, NOT_SERVING at first.

    grpcio-health-checking's own servicer never ends a Watch, so that one watching balancer would hold up every
    drain for the whole of its grace.
    """

    def __init__(self) -> None:
        self.serving = False
        self._left = False
        self._ended = False
        self._changed = asyncio.Event()

    def register(self, server: Any) -> None:
        """Adds the health service to a server that has not started."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def set_serving(self, serving: bool) -> None:
        """Tells every asker and watcher. Has no effect after `leave`."""
        if not self._left:
            self.serving = serving
            self._notify()

    def leave(self) -> None:
        """NOT_SERVING for good."""
        self.set_serving(False)
        self._left = True

    def end_watches(self) -> None:
        """Ends every Watch, after its last answer."""
        self._ended = True
        self._notify()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Response:  # noqa: N802
        """Answers once."""
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return Response(status=self._status(request.service))

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, _: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answers now and at every change."""
        last: int | None = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != last:
                last = status
                yield Response(status=status)  # it may change while this is being sent: look again
            elif self._ended:
                return
            else:
                await changed.wait()

    def _status(self, service: str) -> Any:
        if service not in SERVICES:
            return Response.SERVICE_UNKNOWN
        return SERVING if self.serving else NOT_SERVING

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def main(argv: list[str]) -> int:
    """`taxon health`: returns 0 if the server is SERVING, or becomes so within `--wait-s`, else 1; 2 if called
    wrongly.
    """
    parser = argparse.ArgumentParser("taxon health", description="Exits with 0 if the server is SERVING.")
    parser.add_argument("--service", default="", help="service name to ask for; empty means the whole server")
    parser.add_argument(
        "--timeout-s", type=ranges.seconds, default=2.0, help="seconds to wait for an answer (%(default)s)"
    )
    parser.add_argument(
        "--wait-s",
        type=ranges.number(0.0, ranges.MOST_SECONDS),
        default=0.0,
        help="seconds to wait until it is SERVING (%(default)s)",
    )
    connection.add_options(parser, key=False)
    # An image's health check is always the same command: the container's variables say where to ask, and how.
    if listen := os.environ.get("TAXON_LISTEN"):
        parser.set_defaults(server=_reached(listen))
    names = ("tls_ca", "tls_cert", "tls_key", "tls_server_name")
    told = {name: os.environ.get(f"TAXON_HEALTH_{name.upper()}") for name in names}
    parser.set_defaults(**{name: value for name, value in told.items() if value})
    arguments = parser.parse_args(argv)
    try:
        server = connection.from_options(arguments)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"taxon health: {in_words(error)}\n")
        return 2
    request = health_pb2.HealthCheckRequest(service=arguments.service)
    with server.channel([]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            if arguments.wait_s:
                status = _wait(stub, request, arguments.wait_s)
            else:
                status = stub.Check(request, timeout=arguments.timeout_s).status
        except grpc.RpcError as error:
            sys.stderr.write(f"{arguments.server}: {error.code().name}: {error.details()}\n")
            return 1
    sys.stdout.write(Response.ServingStatus.Name(status) + "\n")
    return 0 if status == SERVING else 1


def _reached(listen: str) -> str:
    """Where this machine reaches a server that listens there."""
    host, _, port = listen.rpartition(":")
    return f"localhost:{port}" if host in ANY_ADDRESS else listen


def _wait(stub: Any, request: health_pb2.HealthCheckRequest, seconds: float) -> Any:
    """Watches until the server says SERVING, however often it ends and comes again meanwhile.

    Raises:
        grpc.RpcError: It did not.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            for answer in stub.Watch(request, timeout=max(0.0, ends - time.monotonic()), wait_for_ready=True):
                if answer.status == SERVING:
                    return SERVING
        except grpc.RpcError:
            if time.monotonic() >= ends:
                raise
        time.sleep(PAUSE_S)
