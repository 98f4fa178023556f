"""Bytes to and from one server, with TLS or without, never waiting, not even for the handshake."""

import errno
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

READ_BYTES = 2**18
CONNECT_TIMEOUT_S = 10.0
NOT_YET = (errno.EINPROGRESS, errno.ENOTCONN, errno.EWOULDBLOCK)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to connect to."""

    family: int
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
    tls: ssl.SSLContext | None = None
    """Must offer `h2` by ALPN; None: nothing is encrypted."""
    server_name: str = ""
    """That the certificate must have."""


def peer(address: str, tls: ssl.SSLContext | None = None, server_name: str = "") -> Peer:
    """Looks a server up: of several addresses, as `localhost` has, the first one that takes a connection.

    Args:
        address: HOST:PORT; an IPv6 address in brackets.
        tls: See `Peer`.
        server_name: In the server's certificate; empty for the host.

    Raises:
        ValueError: The address has no port.
        OSError: Nobody knows the host, or nobody listens there.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ValueError(f"{address!r} is not HOST:PORT")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S) as tried:
            return Peer(tried.family, tried.getpeername(), tls, server_name or host)
    except OSError as error:
        raise OSError(f"cannot connect to {address}: {error.strerror or error}") from None


class Wire:
    """One connection. Every method may raise OSError: it is lost then."""

    def __init__(self, to: Peer) -> None:
        self.socket = socket.socket(to.family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = self.socket.connect_ex(to.address)
        if failure not in (0, *NOT_YET):
            self.socket.close()
            raise OSError(failure, "cannot connect")
        self._plain = bytearray()
        self._sealed = bytearray() if to.tls else self._plain
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = to.tls and to.tls.wrap_bio(self._came, self._leaves, server_hostname=to.server_name)
        self._shaken = False

    @property
    def wants_write(self) -> bool:
        """Whether there is something for the socket that it has not taken."""
        return bool(self._sealed)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Adds to what `flush` sends."""
        self._plain += data

    def flush(self) -> None:
        """Sends what the socket takes."""
        if self._tls:
            self._seal(self._tls)
        while self._sealed:
            try:
                del self._sealed[: self.socket.send(self._sealed)]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NOT_YET:
                    return
                raise

    def read(self) -> bytes:
        """What has come; empty if nothing has.

        Raises:
            OSError: The connection has ended, or never came about.
        """
        try:
            received = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        if not received:
            raise ConnectionResetError("the server closed the connection")
        if not self._tls:
            return received
        self._came.write(received)
        self.flush()
        parts = []
        with suppress(ssl.SSLWantReadError):
            while self._shaken and (part := self._tls.read(READ_BYTES)):
                parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Lets go of the socket."""
        self.socket.close()

    def _seal(self, tls: ssl.SSLObject) -> None:
        with suppress(ssl.SSLWantReadError):
            if not self._shaken:
                tls.do_handshake()
                if tls.selected_alpn_protocol() != "h2":
                    raise ConnectionError("the server does not speak HTTP/2 over TLS")
                self._shaken = True
            while self._plain:
                del self._plain[: tls.write(self._plain)]
        self._sealed += self._leaves.read()
