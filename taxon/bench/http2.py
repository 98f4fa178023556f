"""gRPC calls as HTTP/2 frames by hand (RFC 9113): requests are encoded once, and a call is two or three writes to a
socket, a tenth of what a gRPC client costs.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from taxon.bench import header_block
from taxon.bench.header_block import INTERNAL, UNAVAILABLE, UNKNOWN
from taxon.bench.wire import Peer, Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 32, 1
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
LARGEST_WINDOW = 2**31 - 1
FRAME_SIZES = range(2**14, 2**24)
"""That a server may ask for."""
MOST_BLOCK_BYTES = 2**16
"""Of the headers of one answer."""
CANCEL = 8
NOT_TAKEN = -1
"""Instead of a status: the server has not looked at the call, and a gRPC client would send it again unseen."""
OF_RESET = {7: NOT_TAKEN, 8: 1, 11: 8, 12: 7}
"""HTTP/2's error codes → gRPC's, as its protocol says; others are INTERNAL."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which method of which server to call, and what every call brings along."""

    peer: Peer
    authority: str
    path: str
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(slots=True, eq=False)
class Call:
    """One call that is under way."""

    due: float
    """When it was to be sent, by `time.perf_counter`."""
    body: bytes
    ended: bool = False
    stream: int = 0
    sent: int = 0
    window: int = 0
    line: Any = None
    """That carries it: what has `cancel`."""
    again: "Call | None" = None
    """The same call on another connection: the server had not looked at it."""


Ended = Callable[[Call, int], None]
"""Told of each call, once, with its gRPC status or `NOT_TAKEN`."""


def message(serialized: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\0" + struct.pack(">I", len(serialized)) + serialized


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing or Huffman code."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),))
    rest, more = len(text) - 127, bytearray((127,))
    while rest >= 128:
        more.append(rest % 128 + 128)
        rest //= 128
    return bytes((*more, rest))


def _reset(call: "Call") -> bytes:
    return frame(RST, 0, call.stream, struct.pack(">I", CANCEL))


class Connection:
    """One HTTP/2 connection with any number of calls under way; those beyond what the server allows wait here."""

    free = True
    """Whether it takes one more call now."""

    def __init__(self, target: Target, deadline_s: float, ended: Ended) -> None:
        """Begins to connect.

        Raises:
            OSError: There is no way to that address.
        """
        self._wire = Wire(target.peer)
        self.leaving = self.closed = False
        """Whether the server takes no new calls on it, as after a connection's age; whether it has closed it."""
        self.heard = False
        """Whether the server has ever said anything on it."""
        self._ended = ended
        self._headers = b"".join(
            (
                b"\x83",
                b"\x87" if target.peer.tls else b"\x86",
                b"\x04" + _length(target.path.encode()) + target.path.encode(),
                b"\x01" + _length(target.authority.encode()) + target.authority.encode(),
                b"\x0f\x10\x10application/grpc",
                literal(b"te", b"trailers"),
                literal(b"grpc-timeout", f"{max(1, round(deadline_s * 1e3))}m".encode()),
                *(literal(name.encode(), value.encode()) for name, value in target.metadata),
            )
        )
        self._next_stream = 1
        self._window, self._stream_window, self._max_frame, self._most = 65_535, 65_535, 16_384, 0
        self._calls: dict[int, Call] = {}
        self._waiting: deque[Call] = deque()  # for fewer to be under way
        self._blocked: deque[Call] = deque()  # with body left to send
        self._block = bytearray()  # of headers that have not ended
        self._block_ends = False
        self._received = 0
        self._in = bytearray()
        settings = struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        self._wire.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._wire.write(frame(WINDOW, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65_535)))

    @property
    def socket(self) -> socket.socket:
        """To wait for."""
        return self._wire.socket

    @property
    def wants_write(self) -> bool:
        """Whether the socket must be waited for to send on."""
        return self._wire.wants_write

    def call(self, call: Call) -> None:
        """Begins a call."""
        self._waiting.append(call)
        self.write()

    def cancel(self, call: Call, status: int) -> None:
        """Ends a call that nobody waits for any more."""
        if call.stream:
            if call.sent == len(call.body):  # else `_end` says so
                self._wire.write(_reset(call))
            self._end(call, status)
        else:
            self._waiting.remove(call)
            self._finish(call, status)

    def write(self) -> None:
        """Begins the calls that the server allows, and sends what windows and the socket take."""
        if self.closed:
            return
        try:
            self._begin()
            self._send()
            self._wire.flush()
        except OSError:
            self.lose()

    def read(self) -> None:
        """Takes in what has come."""
        try:
            received = self._wire.read()
            self.heard = self.heard or bool(received)
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
        except (OSError, ValueError, IndexError, struct.error):  # what is not HTTP/2 is no better than nothing
            self.lose()
            return
        self.write()

    def lose(self) -> None:
        """Ends it with all its calls."""
        if self.closed:
            return
        self.leaving = self.closed = True
        for call in [*self._calls.values(), *self._waiting]:
            self._finish(call, UNAVAILABLE)
        self._calls.clear()
        self._waiting.clear()

    def close(self) -> None:
        """Lets go of the socket."""
        self._wire.close()

    def _begin(self) -> None:
        while self._waiting and len(self._calls) < self._most:
            call = self._waiting.popleft()
            call.stream, self._next_stream = self._next_stream, self._next_stream + 2
            call.window = self._stream_window
            self._wire.write(frame(HEADERS, END_HEADERS, call.stream, self._headers))
            self._calls[call.stream] = call
            self._blocked.append(call)

    def _send(self) -> None:
        for _ in range(len(self._blocked)):
            call = self._blocked.popleft()
            if call.ended:
                continue
            body = memoryview(call.body)
            while call.sent < len(body) and call.window > 0 and self._window > 0:
                size = min(len(body) - call.sent, call.window, self._window, self._max_frame)
                end = END_STREAM if call.sent + size == len(body) else 0
                self._wire.write(struct.pack(">I", size)[1:] + bytes((DATA, end)) + struct.pack(">I", call.stream))
                self._wire.write(body[call.sent : call.sent + size])
                call.sent, call.window, self._window = call.sent + size, call.window - size, self._window - size
            if call.sent < len(body):
                self._blocked.append(call)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            padding = payload[0] if flags & PADDED else 0
            start = bool(flags & PADDED) + (5 if flags & PRIORITY else 0)
            self._block[:] = payload[start : len(payload) - padding]
            self._block_ends = bool(flags & END_STREAM)
        elif kind == CONTINUATION:
            self._block += payload
        elif kind == DATA:
            self._count(len(payload))
            if flags & END_STREAM and stream in self._calls:  # not as gRPC ends an answer
                self._end(self._calls[stream], UNKNOWN)
        elif kind == WINDOW:
            (more,) = struct.unpack(">I", payload)
            if not stream:
                self._window += more
            elif stream in self._calls:
                self._calls[stream].window += more
        elif kind == SETTINGS and not flags & ACK:
            self._set(payload)
        elif kind == PING and not flags & ACK:
            self._wire.write(frame(PING, ACK, 0, payload))
        elif kind == RST and stream in self._calls:
            self._end(self._calls[stream], OF_RESET.get(int.from_bytes(payload), INTERNAL))
        elif kind == GOAWAY:
            self._leave(int.from_bytes(payload[:4]) & 0x7FFFFFFF)
        if len(self._block) > MOST_BLOCK_BYTES:
            raise ValueError("headers without an end")
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS and self._block_ends and stream in self._calls:
            self._end(self._calls[stream], header_block.status(bytes(self._block)))

    def _count(self, size: int) -> None:
        """Gives back the window that answers have used, in large pieces."""
        self._received += size
        if self._received > LARGEST_WINDOW // 2:
            self._wire.write(frame(WINDOW, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    def _set(self, payload: bytes) -> None:
        self._most = self._most or LARGEST_WINDOW  # no call begins before the server has spoken
        for key, value in struct.iter_unpack(">HI", payload):
            if key == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ValueError(f"a window of {value} bytes")
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            elif key == MAX_FRAME_SIZE:
                if value not in FRAME_SIZES:
                    raise ValueError(f"frames of {value} bytes")
                self._max_frame = value
            elif key == MAX_CONCURRENT_STREAMS:
                self._most = value
        self._wire.write(frame(SETTINGS, ACK, 0))

    def _leave(self, last: int) -> None:
        """The server takes no calls after `last`."""
        self.leaving = True
        for call in [call for stream, call in self._calls.items() if stream > last] + [*self._waiting]:
            self._calls.pop(call.stream, None)
            self._finish(call, NOT_TAKEN)
        self._waiting.clear()

    def _end(self, call: Call, status: int) -> None:
        """Of a call that has a stream; what has not been sent of it is not sent."""
        self._calls.pop(call.stream, None)
        if call.sent < len(call.body):
            self._wire.write(_reset(call))
        self._finish(call, status)

    def _finish(self, call: Call, status: int) -> None:
        if not call.ended:
            call.ended = True
            self._ended(call, status)
