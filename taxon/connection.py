"""How a client reaches a server: in the open or by TLS, and what it shows there: a certificate of its own, a key."""

import argparse
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

ChannelOptions = list[tuple[str, str | int]]
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """What it takes to reach a server and to be let in.

    Raises:
        ValueError: A key would be sent over a network that is not encrypted.
    """

    target: str
    """`host:port`, or any gRPC target."""
    credentials: grpc.ChannelCredentials | None = None
    """For TLS; None: nothing is encrypted."""
    key: str | None = field(default=None, repr=False)
    """As `taxon keys add` has shown it."""
    server_name: str = ""
    """The name that the server's certificate must have, if it is not the target's."""

    def __post_init__(self) -> None:
        if self.key and self.credentials is None and not _stays_here(self.target):
            raise ValueError(f"the key is not sent to {self.target} without TLS: everybody on the way could read it")

    @property
    def metadata(self) -> Metadata:
        """What every call brings along."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def channel(self, options: ChannelOptions) -> grpc.Channel:
        """A blocking channel."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, self.credentials, [*options, *self._named])

    def aio_channel(self, options: ChannelOptions) -> grpc.aio.Channel:
        """A channel for asyncio. Must be called inside the running loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, self.credentials, [*options, *self._named])

    @property
    def _named(self) -> ChannelOptions:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


def tls(
    ca: Path | str | None = None, cert: Path | str | None = None, key: Path | str | None = None
) -> grpc.ChannelCredentials:
    """Credentials from PEM files.

    Args:
        ca: What signs the server's certificate; None for the authorities that gRPC knows.
        cert: The client's own certificate, for servers that ask for one.
        key: Its private key.

    Raises:
        ValueError: Only one of `cert` and `key`.
        OSError: A file cannot be read.
    """
    if (cert is None) != (key is None):
        raise ValueError("a client certificate and its key go together")
    ca_pem, key_pem, cert_pem = (None if file is None else Path(file).read_bytes() for file in (ca, key, cert))
    return grpc.ssl_channel_credentials(ca_pem, key_pem, cert_pem)


def add_options(parser: argparse.ArgumentParser, *, key: bool = True, server: bool = True) -> None:
    """Gives a command what `from_options` reads; without `server` it has an argument of that name itself."""
    if server:
        parser.add_argument(
            "--server", default="localhost:50051", help="HOST:PORT of the server (default: %(default)s)"
        )
    group = parser.add_argument_group("TLS and keys")
    group.add_argument("--tls", action="store_true", help="encrypt; the other options of TLS say so too")
    group.add_argument(
        "--tls-ca",
        type=Path,
        metavar="FILE",
        help="PEM file of what signs the server's certificate; default: public ones",
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM file of this client's certificate")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM file of its private key")
    group.add_argument(
        "--tls-server-name",
        default="",
        metavar="NAME",
        help="name in the server's certificate; default: that of --server",
    )
    if key:
        group.add_argument("--key-file", type=Path, metavar="FILE", help="file that holds a key of `taxon keys add`")


def from_options(options: argparse.Namespace) -> Connection:
    """What a command was told.

    Raises:
        ValueError: The options do not fit together.
        OSError: A file cannot be read.
    """
    files = options.tls_ca, options.tls_cert, options.tls_key
    encrypted = options.tls or options.tls_server_name or any(files)
    key_file = getattr(options, "key_file", None)
    return Connection(
        options.server,
        tls(*files) if encrypted else None,
        key_file and key_file.read_text().strip(),
        options.tls_server_name,
    )


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stays_here(target: str) -> bool:
    return target.startswith("unix:") or is_loopback(target.rpartition("/")[2])
