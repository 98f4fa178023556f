"""What an operator is told when nobody can listen where they asked."""

import socket

import grpc
import pytest

from taxon.service.access.door import Door
from taxon.service.errors import StartError


async def test_a_port_that_is_taken_is_called_so():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError, match=rf"^--admin-port {address} cannot be bound: Address already in use$"):
            Door(None).bind(grpc.aio.server(), address, "--admin-port")


async def test_an_address_that_is_not_of_this_machine_is_called_so():
    with pytest.raises(StartError, match=r"^--listen 192\.0\.2\.1:0 cannot be bound: Cannot assign requested address$"):
        Door(None).bind(grpc.aio.server(), "192.0.2.1:0")
