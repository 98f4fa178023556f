"""An HTTP/2 server that does as it is told."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from taxon.bench.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame
from taxon.bench.wire import Peer

FINE = b"\x88\x00\x0bgrpc-status\x010"


def answer(stream: int) -> bytes:
    """Status OK."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, FINE)


class Session:
    """One connection, as the server has it."""

    def __init__(self, connected: socket.socket, settings: Mapping[int, int]) -> None:
        self.socket = connected
        self._file = connected.makefile("rb")
        assert self._file.read(len(PREFACE)) == PREFACE
        self.send(frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings.items())))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def next_frame(self) -> tuple[int, int, int, bytes]:
        head = self._file.read(9)
        if len(head) < 9:
            raise EOFError
        length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
        return kind, flags, stream, self._file.read(length)

    def next_request(self) -> int:
        """The stream of the next request that has come whole."""
        while True:
            kind, flags, stream, _ = self.next_frame()
            if kind == DATA and flags & END_STREAM:
                return stream


@contextmanager
def scripted(*scripts: Callable[[Session], None], settings: Mapping[int, int] = MappingProxyType({})) -> Iterator[Peer]:
    """Gives each connection, in their order, to its script; when that returns the connection ends."""
    failures: list[Exception] = []

    def serve(listener: socket.socket, todo: Sequence[Callable[[Session], None]]) -> None:
        try:
            for script in todo:
                connected, _ = listener.accept()
                with connected:
                    script(Session(connected, settings))
        except (EOFError, ConnectionError):
            pass  # the client has left
        except (AssertionError, OSError, ValueError) as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, scripts), daemon=True)
        thread.start()
        yield Peer(socket.AF_INET, listener.getsockname())
    thread.join(5)
    assert not failures
