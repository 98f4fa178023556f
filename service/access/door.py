"""The door of one port: who is let in, and behind which certificate."""

import socket

import grpc

from taxon.service.access.certificates import Credentials
from taxon.service.access.entry import Entry
from taxon.service.access.gate import Gate
from taxon.service.errors import StartError


class Door:
    """Stands before all services of a server."""

    def __init__(self, gate: Gate | None) -> None:
        """Closed, until `let_in`.

        Args:
            gate: Asks who calls. None: everybody is let in.
        """
        self._gate = gate
        self._credentials: Credentials | None = None

    @property
    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What the server is built with."""
        return [self._gate] if self._gate else []

    def let_in(self, entry: Entry) -> None:
        """Asks this of those who come from now on. Must have been called before `bind`."""
        if self._gate and entry.callers:
            self._gate.let_in(entry.callers, entry.places)
        if entry.certificate and self._credentials:
            self._credentials.replace(entry.certificate)
        elif entry.certificate:
            self._credentials = Credentials(entry.certificate)

    def bind(self, server: grpc.aio.Server, address: str, flag: str = "--listen") -> int:
        """Has a server that has not started listen. Returns the port.

        Raises:
            StartError: The address cannot be bound, or gRPC cannot use the certificate.
        """
        try:
            if self._credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self._credentials.grpc)
        except RuntimeError as error:
            raise StartError(f"{flag} {address} cannot be bound: {_refused(address) or error}") from error


def _refused(address: str) -> str:
    """Why the system lets nobody listen there, which gRPC does not say; empty if it does."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(where)
    except OSError as error:
        return error.strerror or str(error)
    return ""
