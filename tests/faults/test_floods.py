"""Clients that do harm by how they speak, not by what they say: neighbours must not notice."""

import contextlib
import socket
import sys
import threading
import time

import pytest

from taxon.v1 import classification_service_pb2 as pb
from tests.faults.callers import Callers
from tests.faults.http2 import connect, frame, message, opening, reset
from tests.faults.served import RED

pytestmark = pytest.mark.faults

REQUEST = pb.ClassifyRequest(image=RED).SerializeToString()
SECONDS = 5.0
# Of a machine that tests share.
MARGIN_S = 0.05


def neighbours(server, **how):
    """Who call now and then, as most do, and retry nothing."""
    return Callers(server.address, count=3, pause_s=0.03, **how)


@contextlib.contextmanager
def unnoticed(server, name, **how):
    """What goes on inside costs neighbours nothing."""
    with neighbours(server, **how) as before:
        time.sleep(SECONDS)
    with neighbours(server, **how) as meanwhile:
        time.sleep(0.5)
        yield
    sys.stdout.write(
        f"{name}: {meanwhile.answered} answered, {len(meanwhile.lost)} lost, "
        f"p99 {before.p99_s() * 1e3:.0f} ms before, {meanwhile.p99_s() * 1e3:.0f} ms meanwhile\n"
    )
    assert server.process.poll() is None
    assert before.lost == []
    assert meanwhile.lost == []
    assert meanwhile.answered > 50
    assert meanwhile.p99_s() < 2 * before.p99_s() + MARGIN_S


def drained(connection):
    """Reads what comes, so that the server can write."""

    def read():
        with contextlib.suppress(OSError):
            while connection.recv(2**16):
                pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def test_calls_that_are_opened_and_reset(serve):
    server = serve("--workers", "1")
    # Made before: it would take this process's lock from those who are measured.
    flood = b"".join(opening(stream) + reset(stream) for stream in range(1, 20_001, 2))
    with unnoticed(server, "rapid reset"):
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), drained(connect(server.address)) as connection:
                connection.sendall(flood)
            time.sleep(0.5)


def test_answers_that_are_never_taken(serve):
    server = serve("--workers", "1")
    with unnoticed(server, "window 0"), connect(server.address, window=0) as connection:
        drained(connection)
        for stream in range(1, 4001, 2):
            connection.sendall(opening(stream) + message(stream, REQUEST))
        time.sleep(SECONDS)


def test_calls_that_are_opened_and_send_nothing(serve):
    """Each holds a turn of the largest message until it is taken away; four hold all."""
    server = serve("--workers", "1")
    with contextlib.ExitStack() as stack, unnoticed(server, "silent", batches=True):
        for _ in range(10):
            connection = drained(stack.enter_context(connect(server.address)))
            path = "/taxon.v1.ClassificationService/BatchClassify"
            connection.sendall(b"".join(opening(stream, path) for stream in range(1, 201, 2)))
        time.sleep(2 * SECONDS)


def test_a_thousand_idle_connections(serve):
    server = serve("--workers", "1")
    with contextlib.ExitStack() as stack, unnoticed(server, "idle"):
        for _ in range(1000):
            stack.enter_context(connect(server.address))
        time.sleep(SECONDS)


def test_callers_of_a_byte_a_second_are_closed(serve):
    server = serve("--workers", "1", "--max-connection-age-seconds", "1", "--max-call-seconds", "1")
    call = opening(1) + frame(0, 0, 1, b"\x00" + (10**6).to_bytes(4))
    with contextlib.ExitStack() as stack, unnoticed(server, "slow"):
        connections = [stack.enter_context(connect(server.address)) for _ in range(100)]
        for connection in connections:
            connection.sendall(call)
        ends = time.monotonic() + 15  # age, the longest call, and 5 s
        while connections and time.monotonic() < ends:
            connections = [one for one in connections if still_open(one)]
            time.sleep(0.5)
    assert connections == []


def still_open(connection):
    try:
        connection.sendall(frame(0, 0, 1, b"."))
        connection.settimeout(0.001)
        return connection.recv(2**16) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_connections_beyond_the_limit_are_closed(serve):
    server = serve("--workers", "1", "--max-connections", "50")
    with contextlib.ExitStack() as stack, neighbours(server) as callers:
        until_open = time.monotonic() + 10
        while callers.answered < 10:
            assert time.monotonic() < until_open
            time.sleep(0.05)
        connections = [stack.enter_context(connect(server.address)) for _ in range(200)]
        time.sleep(1)
        kept = [one for one in connections if is_kept(one)]
        time.sleep(1)
    assert len(kept) <= 50
    assert callers.lost == []
    assert server.label() == "red"


def is_kept(connection):
    """A server that has accepted sends its settings."""
    connection.settimeout(0.05)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not connection.recv(2**16):
            return False
        connection.settimeout(0.01)
        try:
            return connection.recv(2**16) != b""
        except TimeoutError:
            return True
    return False
