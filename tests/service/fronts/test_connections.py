"""What connections cost that say nothing, or too much."""

import asyncio
import contextlib
import time

import grpc
import pytest

from taxon.service.fronts import front, server_options
from taxon.v1 import classification_service_pb2 as pb
from tests.certificates import Authority
from tests.fakes import picture
from tests.faults.http2 import connect, opening

BATCH = pb.BatchClassifyRequest(requests=[pb.ClassifyRequest(image=picture())])


async def answered(call, code):
    """Calls until it is answered so."""
    async with asyncio.timeout(10):
        while await call(b"").code() is not code:  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.01)


async def test_callers_who_open_calls_and_send_nothing_keep_nobody_out(serve, models):
    """Each holds a turn of the largest message until it is taken away; four hold all."""
    async with serve(models) as running, contextlib.AsyncExitStack() as stack:
        await running.stub.BatchClassify(BATCH)
        for _ in range(4):
            silent = stack.enter_context(contextlib.closing(connect(running.address)))
            for stream in range(1, 101, 2):
                silent.sendall(opening(stream, "/taxon.v1.ClassificationService/BatchClassify"))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        for _ in range(20):
            assert (await running.stub.BatchClassify(BATCH, timeout=5)).results[0].response.model_version == "1"
        assert time.monotonic() - began < 2.0  # a single turn lasts 5


async def test_so_many_calls_are_open_and_no_more(serve, models, monkeypatch):
    """Silent ones too; once they are gone others come in."""
    monkeypatch.setattr(front, "MAX_OPEN_COUNT", 50)
    async with serve(models, "--max-connections", "25") as running:
        check = running.channel.unary_unary("/grpc.health.v1.Health/Check")
        await check(b"")
        with contextlib.closing(connect(running.address)) as silent:
            silent.sendall(b"".join(opening(stream) for stream in range(1, 101, 2)))
            await answered(check, grpc.StatusCode.RESOURCE_EXHAUSTED)
        await answered(check, grpc.StatusCode.OK)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_connection_that_does_not_introduce_itself_is_closed(serve, models, tmp_path, monkeypatch, encrypted):
    monkeypatch.setattr(server_options, "HANDSHAKE_MS", 300)
    made = Authority(tmp_path).sign("server")
    flags = ["--tls-cert", str(made.cert), "--tls-key", str(made.key)] if encrypted else []
    async with serve(models, *flags) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.address.rpartition(":")[2]))
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()  # settings, perhaps, and then the end
        writer.close()


async def test_headers_may_have_so_many_bytes_and_no_more(serve, models):
    async with serve(models) as running:
        call = running.channel.unary_unary("/grpc.health.v1.Health/Check")
        await call(b"", metadata=(("x", "a" * 15_000),))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(b"", metadata=(("x", "a" * 17_000),))
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
