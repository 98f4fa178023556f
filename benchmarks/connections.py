"""The load generator's side of a connection: HTTP/2 frames by hand for gRPC, plain HTTP/1.1 for peers that speak it.

Requests are encoded once; a call is two or three writes to a socket, a tenth of what a gRPC client costs.
"""

import socket
import struct
from collections import deque
from dataclasses import dataclass

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
        self.leaving = self.closed = False
        """Whether the server takes no new calls on it, as after a connection's age; whether it has closed it."""
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
            if not self.leaving:
                raise ConnectionError("the server closed the connection")
            self.closed = True
            for stream in [*self._streams]:
                self._end(stream, "reset")
            return
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
            self.leaving = True

    def _end(self, stream: int, status: str) -> None:
        state = self._streams.pop(stream, None)
        if state is None:
            return
        if state[2] < len(state[1]):
            self._out += frame(RST, 0, stream, struct.pack(">I", 8))
        self._finished.append((state[0], status))


class Http1:
    """Calls over HTTP/1.1, for servers that speak no gRPC: a socket for each call that is under way."""

    leaving = closed = False

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
