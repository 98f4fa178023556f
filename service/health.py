"""Readiness, told in the words of `grpc.health.v1`, and the probe that asks for it.

Knows whether the server may be sent traffic; why not is the log's business.
"""

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

SERVICES = ("", "taxon.v1.ClassificationService")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Readiness:
    """The answer to Check and Watch, the same for every service name. Starts as NOT_SERVING."""

    def __init__(self) -> None:
        self._servicer = health_aio.HealthServicer()
        self.serving = False

    async def register(self, server: grpc.aio.Server) -> None:
        """Adds the health service to a server that has not started."""
        await self.set_serving(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        """Tells every asker and watcher. Has no effect after `leave`."""
        self.serving = serving
        for service in SERVICES:
            await self._servicer.set(service, SERVING if serving else NOT_SERVING)

    async def leave(self) -> None:
        """NOT_SERVING for good."""
        self.serving = False
        await self._servicer.enter_graceful_shutdown()


def main(argv: list[str]) -> int:
    """`taxon health`: asks a server once. Returns 0 if it is SERVING, else 1."""
    parser = argparse.ArgumentParser("taxon health", description="Exits with 0 if the server is SERVING.")
    parser.add_argument("--server", default="localhost:50051", help="HOST:PORT of the server (%(default)s)")
    parser.add_argument("--service", default="", help="service name to ask for; empty means the whole server")
    parser.add_argument("--timeout-seconds", type=float, default=2.0, help="time to wait for the answer (%(default)s)")
    arguments = parser.parse_args(argv)
    with grpc.insecure_channel(arguments.server) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined] # the stubs know no attributes set in __init__
                health_pb2.HealthCheckRequest(service=arguments.service), timeout=arguments.timeout_seconds
            )
        except grpc.RpcError as error:
            sys.stderr.write(f"{arguments.server}: {error.code().name}: {error.details()}\n")
            return 1
    sys.stdout.write(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status) + "\n")
    return 0 if reply.status == SERVING else 1
