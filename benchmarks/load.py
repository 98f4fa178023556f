"""A load generator for unary gRPC calls that costs a tenth of a gRPC client: HTTP/2 frames by hand.

Requests are encoded once; a call is two or three writes to a socket. It runs as a process of its own and reports its
own CPU time and how late it sent what was due, so that a reader can tell whether it was the bottleneck.

    python -m benchmarks.load JSON       (see `Plan`); prints one JSON object
"""

import heapq
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 4, 5
READ_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send."""

    address: str
    path: str
    bodies: tuple[str, ...]
    """Files, each a serialized request; sent in turn."""
    seconds: float
    warmup_s: float = 0.5
    callers: int = 0
    """Closed loop: so many calls are always under way. 0: open loop."""
    rate: float = 0.0
    """Open loop: Poisson arrivals per second."""
    connections: int = 4
    deadline_s: float = 1.0
    seed: int = 0
    http1: bool = False
    """POST the bodies as they are, over HTTP/1.1."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing or Huffman code."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Connection:
    """One HTTP/2 connection with any number of calls under way."""

    def __init__(self, plan: Plan, finished: "deque[tuple[float, str]]") -> None:
        host, port = plan.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._finished = finished
        self._headers = (
            b"\x83\x86"
            + b"\x04"
            + bytes((len(plan.path),))
            + plan.path.encode()
            + b"\x01"
            + bytes((len(plan.address),))
            + plan.address.encode()
            + b"\x0f\x10\x10application/grpc"
            + literal(b"te", b"trailers")
            + literal(b"grpc-timeout", f"{int(plan.deadline_s * 1e3)}m".encode())
        )
        self._next_stream = 1
        self._window, self._stream_window, self._max_frame = 65_535, 65_535, 16_384
        self._streams: dict[int, list] = {}  # stream → [due, body, sent bytes, its window]
        self._blocked: deque[int] = deque()  # streams with body left to send
        self._out = bytearray(
            PREFACE
            + frame(SETTINGS, 0, 0, struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, 2**20))
            + frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1 - 65_535))
        )
        self._in = bytearray()

    def call(self, due: float, body: bytes) -> None:
        """Begins a call."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._out += frame(HEADERS, END_HEADERS, stream, self._headers)
        self._streams[stream] = [due, body, 0, self._stream_window]
        self._blocked.append(stream)
        self.write()

    def write(self) -> None:
        """Sends what windows and the socket take."""
        for _ in range(len(self._blocked)):
            stream = self._blocked.popleft()
            state = self._streams.get(stream)
            if state is None:
                continue
            _, body, sent, window = state
            while sent < len(body) and window > 0 and self._window > 0:
                size = min(len(body) - sent, window, self._window, self._max_frame)
                end = END_STREAM if sent + size == len(body) else 0
                self._out += struct.pack(">I", size)[1:] + bytes((DATA, end)) + struct.pack(">I", stream)
                self._out += memoryview(body)[sent : sent + size]
                sent, window, self._window = sent + size, window - size, self._window - size
            state[2], state[3] = sent, window
            if sent < len(body):
                self._blocked.append(stream)
        while self._out:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def read(self) -> None:
        """Takes in what has come."""
        try:
            received = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not received:
            raise ConnectionError("the server closed the connection")
        self._in += received
        start = 0
        while len(self._in) - start >= 9:
            length = int.from_bytes(self._in[start : start + 3])
            if len(self._in) - start < 9 + length:
                break
            kind, flags = self._in[start + 3], self._in[start + 4]
            stream = int.from_bytes(self._in[start + 5 : start + 9]) & 0x7FFFFFFF
            self._take(kind, flags, stream, bytes(self._in[start + 9 : start + 9 + length]))
            start += 9 + length
        del self._in[:start]
        self.write()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS and flags & END_STREAM:
            at = payload.find(b"grpc-status")
            length = payload[at + 11]
            self._end(stream, payload[at + 12 : at + 12 + length].decode())
        elif kind == WINDOW:
            (more,) = struct.unpack(">I", payload)
            if not stream:
                self._window += more
            elif stream in self._streams:
                self._streams[stream][3] += more
        elif kind == SETTINGS and not flags & ACK:
            for offset in range(0, len(payload), 6):
                key, value = struct.unpack_from(">HI", payload, offset)
                if key == INITIAL_WINDOW_SIZE:
                    for state in self._streams.values():
                        state[3] += value - self._stream_window
                    self._stream_window = value
                elif key == MAX_FRAME_SIZE:
                    self._max_frame = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == RST and stream in self._streams:
            self._end(stream, "reset")
        elif kind == GOAWAY:
            raise ConnectionError("the server said goodbye")

    def _end(self, stream: int, status: str) -> None:
        state = self._streams.pop(stream, None)
        if state is None:
            return
        if state[2] < len(state[1]):
            self._out += frame(RST, 0, stream, struct.pack(">I", 8))
        self._finished.append((state[0], status))


class Http1:
    """Calls over HTTP/1.1, for servers that speak no gRPC: a socket for each call that is under way."""

    def __init__(self, plan: Plan, finished: "deque[tuple[float, str]]") -> None:
        host, port = plan.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._plan, self._finished = plan, finished
        self._out, self._in = bytearray(), bytearray()
        self._due: float | None = None

    @property
    def free(self) -> bool:
        return self._due is None

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def call(self, due: float, body: bytes) -> None:
        """Begins a call."""
        self._due = due
        head = f"POST {self._plan.path} HTTP/1.1\r\nhost: {self._plan.address}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._out += head.encode() + body
        self.write()

    def write(self) -> None:
        """Sends what the socket takes."""
        while self._out:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return

    def read(self) -> None:
        """Takes in what has come."""
        received = self.socket.recv(READ_BYTES)
        if not received:
            raise ConnectionError("the server closed the connection")
        self._in += received
        end = self._in.find(b"\r\n\r\n")
        if end < 0 or self._due is None:
            return
        head = bytes(self._in[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._in) >= end + 4 + length:
            code = head.split(b" ")[1]
            self._finished.append((self._due, "0" if code == b"200" else "8" if code in (b"429", b"503") else "13"))
            self._in.clear()
            self._due = None


def pick(connections: list, sent: int, plan: Plan, finished: deque, selector: selectors.BaseSelector) -> object:
    """The connection for the next call."""
    if not plan.http1:
        return connections[sent % len(connections)]
    for connection in connections:
        if connection.free:
            return connection
    connection = Http1(plan, finished)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    connections.append(connection)
    return connection


def run(plan: Plan) -> dict:
    """Sends the load and reports what came of it."""
    bodies = []
    for file in plan.bodies:
        with Path(file).open("rb") as opened:
            message = opened.read()
        bodies.append(message if plan.http1 else b"\0" + struct.pack(">I", len(message)) + message)
    dice = random.Random(plan.seed)
    finished: deque[tuple[float, str]] = deque()
    connections = [(Http1 if plan.http1 else Connection)(plan, finished) for _ in range(plan.connections)]
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.write()
    began = time.perf_counter()
    counted_from, ends = began + plan.warmup_s, began + plan.warmup_s + plan.seconds
    due = [began] * plan.callers if plan.callers else [began + dice.expovariate(plan.rate)]
    done: list[tuple[float, float, str]] = []  # due, latency, status
    lags: list[float] = []
    sent = under_way = 0
    cpu_from = 0.0
    while under_way or (due and due[0] < ends):
        now = time.perf_counter()
        if not cpu_from and now >= counted_from:
            cpu_from = time.process_time()
        while due and due[0] <= now and due[0] < ends:
            at = heapq.heappop(due)
            pick(connections, sent, plan, finished, selector).call(at, bodies[sent % len(bodies)])
            lags.append(time.perf_counter() - at)
            sent, under_way = sent + 1, under_way + 1
            if not plan.callers:
                heapq.heappush(due, at + dice.expovariate(plan.rate))
        if now > ends + 12:
            break
        for connection in connections:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
            if selector.get_key(connection.socket).events != events:
                selector.modify(connection.socket, events, connection)
        wait = max(0.0, due[0] - time.perf_counter()) if due and due[0] < ends else 0.2
        for key, events in selector.select(wait):
            if events & selectors.EVENT_READ:
                key.data.read()
            if events & selectors.EVENT_WRITE:
                key.data.write()
        now = time.perf_counter()
        while finished:
            at, status = finished.popleft()
            under_way -= 1
            done.append((at, now - at, status))
            if plan.callers:
                heapq.heappush(due, now)
    counted = [entry for entry in done if counted_from <= entry[0] + (entry[1] if plan.callers else 0.0) < ends]
    cpu_s = time.process_time() - cpu_from
    return {
        "offered_per_s": len([1 for at, _, _ in done if at >= counted_from]) / plan.seconds,
        **summary(counted, plan),
        "unanswered": under_way,
        "generator_cpu_share": round(cpu_s / plan.seconds, 3),
        "generator_lag_p99_ms": quantile(lags, 0.99),
    }


def summary(counted: Sequence[tuple[float, float, str]], plan: Plan) -> dict:
    """Rates and latencies of the calls that count."""
    good = [latency for _, latency, status in counted if status == "0"]
    refused = [latency for _, latency, status in counted if status in ("8", "14", "4")]
    statuses: dict[str, int] = {}
    for _, _, status in counted:
        statuses[status] = statuses.get(status, 0) + 1
    return {
        "answered_per_s": round(len(good) / plan.seconds, 1),
        "good_per_s": round(sum(latency <= plan.deadline_s for latency in good) / plan.seconds, 1),
        "p50_ms": quantile(good, 0.5),
        "p99_ms": quantile(good, 0.99),
        "refused_per_s": round(len(refused) / plan.seconds, 1),
        "refused_p50_ms": quantile(refused, 0.5),
        "statuses": statuses,
    }


def quantile(seconds: Sequence[float], share: float) -> float | None:
    """In milliseconds; None of nothing."""
    if not seconds:
        return None
    return round(sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1e3, 2)


def main(argv: list[str]) -> None:
    words = json.loads(argv[1])
    words["bodies"] = tuple(words["bodies"])
    print(json.dumps(run(Plan(**words))))


if __name__ == "__main__":
    main(sys.argv)
