"""A whole server in this process, and a real channel to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from taxon.service.config import parse
from taxon.service.server import Server
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.service.thread_workers import ThreadWorkers
from tests.waiting import until


@dataclass
class Running:
    """A server that has loaded its models."""

    channel: grpc.aio.Channel
    stub: ClassificationServiceStub
    server: Server

    address: str

    def page(self) -> str:
        """The metrics page."""
        with urlopen(f"http://127.0.0.1:{self.server.metrics_port}/metrics") as reply:
            return reply.read().decode()

    def counted(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 if nothing has been counted."""
        return self.server.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(models: Path, *flags: str, workers=ThreadWorkers) -> AsyncIterator[Running]:
    """A server whose workers are threads; `workers=WorkerProcesses` has it as it is."""
    port_file = models.parent / "port"
    words = ["--models", str(models), "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--device", "cpu"]
    words += ["--max-connection-age-seconds", "0"]  # nobody need be led away
    server = Server(parse([*words, *flags]), workers)
    serving = asyncio.create_task(server.serve())
    loaded = asyncio.create_task(server.loaded.wait())
    await asyncio.wait({serving, loaded}, return_when=asyncio.FIRST_COMPLETED)
    await until(lambda: serving.done() or port_file.exists())  # fronts may take longer than models
    if serving.done():
        loaded.cancel()
        serving.result()
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    address = f"127.0.0.1:{port_file.read_text().strip()}"
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Running(channel, ClassificationServiceStub(channel), server, address)
        server.stop()
        await serving


@pytest.fixture
def serve() -> Callable[..., AbstractAsyncContextManager[Running]]:
    return running


@dataclass
class Details:
    """A rich status, unpacked: exactly one ErrorInfo, every other detail by its type."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    others: dict[str, object]


def unpack(status: status_pb2.Status) -> Details:
    infos, others = [], {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rsplit(".", 1)[1])
        detail = kind()
        packed.Unpack(detail)
        if kind is error_details_pb2.ErrorInfo:
            infos.append(detail)
        else:
            assert kind.__name__ not in others
            others[kind.__name__] = detail
    (info,) = infos
    assert info.domain == "taxon"
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return Details(codes[status.code], status.message, info.reason, dict(info.metadata), others)


@pytest.fixture
def refused() -> Callable[..., object]:
    """Awaits a call that must fail; returns its rich status, unpacked."""

    async def expect(call: object) -> Details:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call
        error = failure.value
        trailers = grpc.aio.Metadata(*error.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert rpc_status.code_to_grpc_status_code(status.code) is error.code()
        return unpack(status)

    return expect


@pytest.fixture
def unpacked() -> Callable[[status_pb2.Status], Details]:
    return unpack


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Undoes what `main` configures: it writes to the standard error of one test."""
    yield
    structlog.reset_defaults()
