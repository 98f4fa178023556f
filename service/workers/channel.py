"""One end of a socket between two processes of a server, driven by the event loop. Knows frames; not what they say."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from taxon.service.workers.worker_protocol import pack, unpacked

SOCKET_BUFFER_BYTES = 4 * 2**20
READ_BYTES = 2**18
FRAMES_PER_CALL = 64


class Channel:
    """Sends and receives messages. Nothing here blocks."""

    def __init__(self, end: socket.socket, on_message: Callable[[Any], None], on_end: Callable[[], None]) -> None:
        """Begins to receive. Must be called on the event loop.

        Args:
            end: Of the socket; closed by `close`.
            on_message: Told every message.
            on_end: Told once that the other end is closed.
        """
        self._socket = end
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._unsent: list[memoryview] = []
        self._flushing = self._waits = False
        self._received = bytearray()
        self.closed = False
        end.setblocking(False)
        self._loop.add_reader(end, self._read)

    def send(self, message: object) -> None:
        """Sends a message, in the background if the socket's buffer is full. Without effect once closed."""
        if self.closed:
            return
        self._unsent.append(memoryview(pack(message)))
        self._flush()

    def send_soon(self, message: object) -> None:
        """As `send`, together with whatever else is sent in this turn of the event loop."""
        if self.closed:
            return
        self._unsent.append(memoryview(pack(message)))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Closes this end. May be called more than once."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _flush(self) -> None:
        self._flushing = False
        if self.closed:
            return
        try:
            while self._unsent:
                sent = self._socket.sendmsg(self._unsent[:FRAMES_PER_CALL])
                while sent:
                    first = self._unsent[0]
                    if sent < len(first):
                        self._unsent[0] = first[sent:]
                        break
                    sent -= len(self._unsent.pop(0))
        except BlockingIOError:
            self._waits = True
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._unsent.clear()  # the other end has died: the reader sees it and says so
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            received = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._loop.remove_reader(self._socket)
            self._on_end()
            return
        self._received += received
        for message in unpacked(self._received):
            self._on_message(message)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends with room for many frames.

    Raises:
        OSError: There are no descriptors left.
    """
    pair = socket.socketpair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return pair
