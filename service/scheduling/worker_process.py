"""One worker process and the socket to it, driven by the event loop. Knows frames; not what they are about."""

import asyncio
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from taxon.service.scheduling import worker_protocol
from taxon.service.scheduling.worker_main import FLAG_COUNT, WorkerSettings

SOCKET_BUFFER_BYTES = 4 * 2**20
READ_BYTES = 2**18
PIECES_PER_CALL = 64


class Process:
    """A running worker. Nothing here blocks but `wait`."""

    def __init__(
        self,
        number: int,
        settings: WorkerSettings,
        on_message: Callable[["Process", Any], None],
        on_end: Callable[["Process"], None],
    ) -> None:
        """Starts the process. Must be called on the event loop.

        Args:
            number: Names the worker; its successors have the same.
            settings: Of the worker.
            on_message: Told every message.
            on_end: Told that the process has closed its socket, which it does only by ending.
        """
        self.number = number
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._unsent: list[memoryview] = []
        self._received = bytearray()
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        descriptor = os.memfd_create("taxon-flags")
        os.ftruncate(descriptor, FLAG_COUNT)
        self.flags = mmap.mmap(descriptor, FLAG_COUNT)
        """One byte for each input of the batch that the worker has: not zero once its caller has left."""
        words = [str(theirs.fileno()), str(descriptor), settings.to_json()]
        self._popen = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "taxon.service.scheduling.worker_main", *words],
            pass_fds=(theirs.fileno(), descriptor),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        os.close(descriptor)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def send(self, message: object, payloads: Sequence[bytes | memoryview] = ()) -> None:
        """Sends a frame, in the background if the socket's buffer is full."""
        self._unsent.extend(memoryview(piece) for piece in worker_protocol.pack(message, payloads) if piece)
        self._write()

    def kill(self) -> None:
        """Ends the process at once; `on_end` follows."""
        self._popen.kill()

    def close(self) -> None:
        """Closes the socket, upon which the worker ends after its batch."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self.flags.close()

    def wait(self, timeout_s: float) -> int:
        """Waits for the end of a process that has been closed or killed; kills it after `timeout_s`. Returns its
        status.
        """
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.sendmsg(self._unsent[:PIECES_PER_CALL])
                while sent:
                    first = self._unsent[0]
                    if sent < len(first):
                        self._unsent[0] = first[sent:]
                        break
                    sent -= len(self._unsent.pop(0))
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._unsent.clear()  # it has died: the reader sees the end of the socket and says so
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            received = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._on_end(self)
            return
        self._received += received
        size = worker_protocol.HEADER.size
        while len(self._received) >= size:
            pickled, payload = worker_protocol.HEADER.unpack_from(self._received)
            end = size + pickled + payload
            if len(self._received) < end:
                return
            frame = memoryview(bytes(self._received[size:end]))
            del self._received[:end]
            message, _ = worker_protocol.unpack(frame[:pickled], frame[pickled:])
            self._on_message(self, message)
