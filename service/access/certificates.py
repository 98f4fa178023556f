"""The server's certificate, and those of clients that it trusts: read and checked as a whole, so that what cannot serve
never takes the place of what does.
"""

import os
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import grpc

from taxon.service.access.expiry import expires
from taxon.service.errors import StartError


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows its clients, and what it asks of them. PEM, as bytes."""

    chain: bytes
    """The server's certificate first, then those that lead to the one that clients trust."""
    key: bytes = field(repr=False)
    """Private. Not encrypted."""
    client_ca: bytes | None
    """A client must show a certificate that one of these has signed; None: it need show none."""


def read_certificate(chain: Path, key: Path, client_ca: Path | None) -> Certificate:
    """Reads the files and tries them.

    Raises:
        StartError: One cannot be read or is none, or the key is not the certificate's.
    """
    read = Certificate(
        _read("--tls-cert", chain),
        _read("--tls-key", key),
        None if client_ca is None else _read("--tls-client-ca", client_ca),
    )
    try:
        http_context(replace(read, client_ca=None))
        expires(read.chain)
    except ssl.SSLError as error:
        reason = error.reason.replace("_", " ").lower() if error.reason else "no PEM"
        raise StartError(f"--tls-cert {chain} with --tls-key {key} cannot be used: {reason}") from error
    except (ValueError, OSError) as error:
        raise StartError(f"--tls-cert {chain} with --tls-key {key} cannot be used: {error}") from error
    if read.client_ca is not None:
        try:
            http_context(read)
        except (ValueError, OSError) as error:  # those of ssl are OSErrors
            raise StartError(f"--tls-client-ca {client_ca} holds no certificate in PEM") from error
    return read


def http_context(certificate: Certificate) -> ssl.SSLContext:
    """The certificate for Python's own servers.

    Raises:
        ssl.SSLError: It cannot be used.
        ValueError: The key is encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _memory(certificate.chain) as chain, _memory(certificate.key) as key:
        context.load_cert_chain(chain, key, _no_password)
    if certificate.client_ca is not None:
        context.load_verify_locations(cadata=certificate.client_ca.decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Credentials:
    """The certificate for gRPC servers: connections that are there keep theirs, new ones get the latest."""

    def __init__(self, certificate: Certificate) -> None:
        self._next: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        # gRPC has no server that asks for a certificate and does without: all must show one, or nobody is asked.
        self.grpc = grpc.dynamic_ssl_server_credentials(
            _configuration(certificate),
            self._taken,  # type: ignore[arg-type]  # None is no change; the stubs lack it
            require_client_authentication=certificate.client_ca is not None,
        )
        """For `add_secure_port`, once. gRPC asks for another certificate before every handshake, on its own thread."""

    def replace(self, certificate: Certificate) -> None:
        """Shows another certificate to those who connect from now on."""
        self._next.append(_configuration(certificate))

    def _taken(self) -> grpc.ServerCertificateConfiguration | None:
        """None where nothing has changed. What gRPC (1.85) is given it puts in the place of what a handshake on another
        thread may just be taking, without a lock: at every handshake, that ends the process soon.
        """
        try:
            return self._next.pop()
        except IndexError:
            return None


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificate.key, certificate.chain)], certificate.client_ca)


def _read(flag: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"{flag} {file} cannot be read: {error.strerror}") from error


@contextmanager
def _memory(content: bytes) -> Iterator[str]:
    """A file of these bytes without a place on a disk: what is tried is what was read, and the key goes nowhere."""
    descriptor = os.memfd_create("taxon-tls")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> NoReturn:
    raise ValueError("the key is encrypted; nobody could type its password")
