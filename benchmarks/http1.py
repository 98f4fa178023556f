"""Calls over HTTP/1.1, for peers that speak no gRPC: a socket for each call that is under way."""

from taxon.bench.http2 import Call, Ended, Target
from taxon.bench.wire import Wire

REFUSED = {b"429": 8, b"503": 8}
INTERNAL, UNAVAILABLE = 13, 14


class Http1:
    """A connection, as `taxon.bench.load` takes it. A cancelled call ends it."""

    def __init__(self, target: Target, _deadline_s: float, ended: Ended) -> None:
        self._wire = Wire(target.peer)
        self._head = f"POST {target.path} HTTP/1.1\r\nhost: {target.authority}\r\ncontent-length: ".encode()
        self._ended = ended
        self._in = bytearray()
        self._call: Call | None = None
        self.leaving = self.closed = self.heard = False
        self.socket = self._wire.socket

    @property
    def free(self) -> bool:
        return self._call is None

    @property
    def wants_write(self) -> bool:
        return self._wire.wants_write

    def call(self, call: Call) -> None:
        self._call = call
        self._wire.write(self._head + str(len(call.body)).encode() + b"\r\n\r\n")
        self._wire.write(call.body)
        self.write()

    def cancel(self, _call: Call, status: int) -> None:
        self.leaving = self.closed = True
        self._finish(status)

    def write(self) -> None:
        try:
            self._wire.flush()
        except OSError:
            self.cancel(self._call, UNAVAILABLE)

    def read(self) -> None:
        try:
            received = self._wire.read()
        except OSError:
            self.cancel(self._call, UNAVAILABLE)
            return
        self.heard = self.heard or bool(received)
        self._in += received
        end = self._in.find(b"\r\n\r\n")
        if end < 0 or self._call is None:
            return
        head = bytes(self._in[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._in) >= end + 4 + length:
            code = head.split(b" ")[1]
            self._in.clear()
            self._finish(0 if code == b"200" else REFUSED.get(code, INTERNAL))

    def close(self) -> None:
        self._wire.close()

    def _finish(self, status: int) -> None:
        call, self._call = self._call, None
        if call is not None and not call.ended:
            call.ended = True
            self._ended(call, status)
