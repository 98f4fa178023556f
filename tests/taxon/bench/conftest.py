"""Real gRPC servers with made-up services."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from taxon.bench.http2 import Target
from taxon.bench.wire import peer

PATH = "/any.Service/Echo"


@contextmanager
def echoing(answer: Callable[[bytes, grpc.ServicerContext], bytes], threads: int = 8, credentials=None) -> Iterator:
    """A server whose only method answers bytes with bytes; yields its port."""
    handler = grpc.unary_unary_rpc_method_handler(answer)
    methods = grpc.method_handlers_generic_handler("any.Service", {"Echo": handler})
    server = grpc.server(ThreadPoolExecutor(threads), handlers=[methods])
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.fixture
def echo() -> Iterator[Target]:
    with echoing(lambda request, _: request) as port:
        yield Target(peer(f"127.0.0.1:{port}"), "localhost", PATH)
