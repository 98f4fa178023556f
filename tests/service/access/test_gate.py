"""Who is let in, asked of one whole server, whose file of callers changes while clients are connected."""

import asyncio
import contextlib
import json
import time
import urllib.error
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen

import grpc
import pytest
from google.protobuf import descriptor_pool
from structlog.testing import capture_logs

from taxon import connection
from taxon.classify import main as classify
from taxon.client import AsyncClient
from taxon.errors import AccessError, OverloadedError
from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference import open_inference_service_pb2_grpc as oip_grpc
from taxon.service.access import callers, entry, gate, keys_main
from taxon.service.access.gate import Gate, need_of
from taxon.service.access.usage import CallerLimits
from taxon.service.scheduling.board import Board
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc
from taxon.v1 import model_admin_service_pb2 as admin_pb
from taxon.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from tests.certificates import Authority
from tests.fakes import picture
from tests.waiting import until


class File:
    """A file of callers, changed as an operator does."""

    def __init__(self, path, capsys):
        self.path, self._capsys = path, capsys

    def add(self, name, groups, *flags):
        assert keys_main.main(["add", name, "--keys", str(self.path), "--groups", groups, *flags]) == 0
        said = self._capsys.readouterr().out.split()  # the key comes after what the server logs
        return said[-1] if "--identity" not in flags else ""

    def revoke(self, name):
        assert keys_main.main(["revoke", name, "--keys", str(self.path)]) == 0


@pytest.fixture
def file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(entry, "LOOK_S", 0.05)
    return File(tmp_path / "keys.json", capsys)


def bearing(key):
    return (("authorization", f"Bearer {key}"),)


async def ready(channel, method="/grpc.health.v1.Health/Check"):
    return await channel.unary_unary(method)(b"")


async def test_keys(serve, models, file, refused, capsys, tmp_path):
    """Missing, wrong, of another group, expired, revoked while connected: each before anything is said of models."""
    app, infer = file.add("app", "classify"), file.add("triton", "inference,metrics")
    ops = file.add("ops", "admin")
    late = file.add("late", "classify", "--expires-in-days", "0.000001")
    told = json.loads(file.path.read_text())
    assert app not in file.path.read_text()
    assert {caller["name"] for caller in told["callers"]} == {"app", "triton", "ops", "late"}
    flags = ["--keys", str(file.path), "--metrics-port", "0", "--model-control", "explicit"]
    async with serve(models, *flags) as running:
        channel, stub = running.channel, running.stub
        inference = oip_grpc.GRPCInferenceServiceStub(channel)
        request = pb.ClassifyRequest(image=picture())

        # Nobody knows who calls: one answer to all, of models that are there, that are not, and of malformed messages.
        answers = set()
        for metadata in (
            (),
            bearing("nonsense"),
            bearing(app[:-1] + ("0" if app[-1] != "0" else "1")),
            bearing(late),
            bearing(f"taxon_{'0' * 16}_{'0' * 64}"),
            bearing("k" * 5000),
            (("authorization", f"Basic {app}"),),
            (("authorization", app),),
        ):
            for call in (
                stub.Classify(request, metadata=metadata),
                stub.Classify(pb.ClassifyRequest(model_name="none"), metadata=metadata),
                stub.GetModel(pb.GetModelRequest(model_name="none"), metadata=metadata),
                channel.unary_unary("/taxon.v1.ClassificationService/Classify")(b"\xff", metadata=metadata),
                channel.unary_unary("/taxon.v1.ClassificationService/None")(b"", metadata=metadata),
                channel.unary_unary("/no.Service/None")(b"", metadata=metadata),
                inference.ModelReady(oip.ModelReadyRequest(name="none"), metadata=metadata),
                inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="x"), metadata=metadata),
            ):
                error = await refused(call)
                answers.add((error.code, error.reason, error.message, tuple(error.metadata)))
        assert {answer[:2] for answer in answers} == {(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")}
        assert len(answers) == 1

        # Who is known may do what its groups say.
        assert (await stub.Classify(request, metadata=bearing(app))).classifications[0].label == "red"
        assert (await stub.Classify(request, metadata=(("authorization", f"bearer {app}"),))).model_version == "1"
        models_told = await stub.ListModels(pb.ListModelsRequest(), metadata=bearing(app))
        assert [model.name for model in models_told.models] == ["colors"]
        assert (await inference.ModelReady(oip.ModelReadyRequest(name="colors"), metadata=bearing(infer))).ready
        load = oip.RepositoryModelLoadRequest(model_name="colors")
        await inference.RepositoryModelLoad(load, metadata=bearing(ops))
        for call, group in (
            (stub.Classify(request, metadata=bearing(infer)), "classify"),
            (stub.GetModel(pb.GetModelRequest(model_name="none"), metadata=bearing(ops)), "classify"),
            (inference.ModelReady(oip.ModelReadyRequest(name="none"), metadata=bearing(app)), "inference"),
            (inference.RepositoryModelLoad(load, metadata=bearing(infer)), "admin"),
            (channel.unary_unary("/no.Service/None")(b"", metadata=bearing(app)), "admin"),
        ):
            error = await refused(call)
            assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert error.metadata == {"group": group}
        assert running.counted("taxon_refused_calls_total", reason="PERMISSION_DENIED", caller="triton") == 2
        assert running.counted("taxon_refused_calls_total", reason="UNAUTHENTICATED", caller="") == 64

        # Whether the server may be sent traffic is told to everybody.
        await ready(channel)
        assert (await inference.ServerReady(oip.ServerReadyRequest())).ready
        assert (await inference.ServerLive(oip.ServerLiveRequest())).live

        # The page asks for a key as well.
        def page(**headers):
            url = f"http://127.0.0.1:{running.server.metrics_port}/metrics"
            return urlopen(Request(url, headers=headers)).read()

        assert b"taxon_refused_calls_total" in await asyncio.to_thread(page, Authorization=f"Bearer {infer}")
        for headers in ({}, {"Authorization": f"Bearer {app}"}, {"Authorization": "Bearer x"}):
            with pytest.raises(urllib.error.HTTPError) as answer:
                await asyncio.to_thread(page, **headers)
            assert answer.value.code == 401
            answer.value.close()

        # The command and the client bring it along.
        key_file, red = tmp_path / "key", tmp_path / "red.png"
        key_file.write_text(app + "\n")
        red.write_bytes(picture())
        words = [str(red), "--json", "--server", running.address]
        assert await asyncio.to_thread(classify, [*words, "--key-file", str(key_file)]) == 0
        assert "red" in capsys.readouterr().out
        assert await asyncio.to_thread(classify, words) == 1
        assert "UNAUTHENTICATED" in capsys.readouterr().out

        async with AsyncClient(running.address, key=app) as client:
            await client.classify(picture())
            file.revoke("app")
            with contextlib.suppress(AccessError):
                async with asyncio.timeout(10):
                    while True:
                        await client.classify(picture())
            with pytest.raises(AccessError) as failure:
                await client.classify(picture())
            assert failure.value.reason == "UNAUTHENTICATED"

            # A file that is none is not used; the next good one is.
            good = file.path.read_bytes()
            with capture_logs() as logs:
                file.path.write_text('{"callers": [{"name": "x"}]}')
                await until(lambda: any("not used" in line["event"] for line in logs))
            await inference.ModelReady(oip.ModelReadyRequest(name="colors"), metadata=bearing(infer))
            file.path.write_bytes(good)
            again = file.add("app", "classify")
            await until(lambda: len(running.server._entry_files.entry.callers.callers) == 4)
            assert (await stub.Classify(request, metadata=bearing(again))).model_version == "1"


async def test_certificates_as_identities(serve, models, file, refused, tmp_path):
    authority = Authority(tmp_path)
    served = authority.sign("server")
    who = {
        "app": authority.sign("app", hosts=["app.example"]),
        "mesh": authority.sign("mesh", hosts=[], uri="spiffe://example/mesh"),
        "ops": authority.sign("ops", hosts=["ops.example"]),
        "stranger": authority.sign("stranger", hosts=["app.example.com"]),
    }
    file.add("app", "classify", "--identity", "dns:app.example", "--max-concurrent-calls", "1")
    file.add("mesh", "classify,inference", "--identity", "uri:spiffe://example/mesh")
    file.add("ops", "admin", "--identity", "subject:CN=ops")
    key = file.add("by-key", "inference")
    flags = ["--tls-cert", served.cert, "--tls-key", served.key, "--tls-client-ca", authority.cert]
    async with serve(models, *map(str, flags), "--keys", str(file.path)) as running:

        @contextlib.asynccontextmanager
        async def stubs(name):
            credentials = connection.tls(authority.cert, who[name].cert, who[name].key)
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(running.address, credentials, options) as channel:
                yield pb_grpc.ClassificationServiceStub(channel), oip_grpc.GRPCInferenceServiceStub(channel), channel

        request = pb.ClassifyRequest(image=picture())
        ask = oip.ModelReadyRequest(name="colors")
        async with stubs("app") as (stub, inference, channel):
            assert (await stub.Classify(request)).model_version == "1"
            assert (await refused(inference.ModelReady(ask))).reason == "PERMISSION_DENIED"
            assert (await inference.ModelReady(ask, metadata=bearing(key))).ready  # the key decides where there is one
            assert (await refused(stub.Classify(request, metadata=bearing("x")))).reason == "UNAUTHENTICATED"
            assert (await refused(channel.unary_unary("/no.Service/None")(b""))).reason == "PERMISSION_DENIED"
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await channel.unary_unary("/taxon.v1.ClassificationService/None")(b"")
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with stubs("mesh") as (stub, inference, channel):
            assert (await stub.BatchClassify(pb.BatchClassifyRequest(requests=[request]))).results[0].response
            assert (await inference.ModelReady(ask)).ready
        async with stubs("ops") as (stub, *_):
            assert (await refused(stub.Classify(request))).reason == "PERMISSION_DENIED"
        async with stubs("stranger") as (stub, _, channel):
            for call in (stub.Classify(request), channel.unary_unary("/no.Service/None")(b"")):
                assert (await refused(call)).reason == "UNAUTHENTICATED"
            await ready(channel)


async def test_limits_of_a_caller(serve, models, file, refused):
    free, slow = file.add("free", "classify"), file.add("slow", "classify", "--max-calls-per-second", "0.1")
    async with serve(models, "--keys", str(file.path), "--max-caller-calls", "50") as running:
        request = pb.ClassifyRequest(image=picture())

        async def outcomes(key, count):
            calls = [running.stub.Classify(request, metadata=bearing(key)) for _ in range(count)]
            codes = [await call.code() for call in calls]
            assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            return codes.count(grpc.StatusCode.OK)

        assert await outcomes(free, 40) == 40
        assert await outcomes(slow, 20) == 1
        error = await refused(running.stub.Classify(request, metadata=bearing(slow)))
        assert (error.reason, error.metadata) == ("CALLER_LIMIT_EXCEEDED", {"maxCallsPerSecond": "0.1"})
        assert 0 < error.others["RetryInfo"].retry_delay.ToMilliseconds() <= 10_000
        async with AsyncClient(running.address, key=slow) as client:
            with pytest.raises(OverloadedError) as failure:
                await client.classify(picture())
            assert 0 < failure.value.retry_after_s <= 10
        assert running.counted("taxon_refused_calls_total", reason="CALLER_LIMIT_EXCEEDED", caller="slow") == 21


async def test_every_front_asks(serve, models, file, refused):
    key, slow = file.add("app", "classify"), file.add("slow", "classify", "--max-calls-per-second", "3")
    flags = ["--keys", str(file.path), "--fronts", "2", "--workers", "1"]
    async with serve(models, *flags, workers=WorkerProcesses) as running:
        request = pb.ClassifyRequest(image=picture())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(running.address, options)) for _ in range(8)
            ]
            connected = [pb_grpc.ClassificationServiceStub(channel) for channel in channels]
            for stub in connected:
                assert (await stub.Classify(request, metadata=bearing(key))).model_version == "1"
                assert (await refused(stub.Classify(request))).reason == "UNAUTHENTICATED"
            began = time.monotonic()
            calls = [stub.Classify(request, metadata=bearing(slow)) for stub in connected * 3]
            codes = [await call.code() for call in calls]
            # Of both fronts together, and of what came later than the first second's.
            assert 3 <= codes.count(grpc.StatusCode.OK) < 5 + 3 * (time.monotonic() - began)
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            file.revoke("app")
            await until(lambda: len(running.server._entry_files.entry.callers.callers) == 1)
            for stub in connected:
                async with asyncio.timeout(10):
                    while (code := await stub.Classify(request, metadata=bearing(key)).code()) is grpc.StatusCode.OK:
                        pass
                assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_operators_port_asks_too(serve, models, file, refused):
    app, operator = file.add("app", "classify"), file.add("operator", "admin")
    flags = ["--keys", str(file.path), "--admin-port", "0"]
    async with (
        serve(models, *flags) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as channel,
    ):
        stub = ModelAdminServiceStub(channel)
        request = admin_pb.GetTrafficRequest(model_name="colors")
        assert (await refused(stub.GetTraffic(request))).reason == "UNAUTHENTICATED"
        assert (await refused(stub.GetTraffic(request, metadata=bearing(app)))).reason == "PERMISSION_DENIED"
        assert (await stub.GetTraffic(request, metadata=bearing(operator))).traffic.default_version == "1"
        file.revoke("operator")

        for _ in range(200):
            if await stub.GetTraffic(request, metadata=bearing(operator)).code() is grpc.StatusCode.UNAUTHENTICATED:
                break
            await asyncio.sleep(0.05)
        assert (await refused(stub.GetTraffic(request, metadata=bearing(operator)))).reason == "UNAUTHENTICATED"


def test_every_method_has_its_need():
    """A method that is new belongs to the group of its service; a service that is new to nobody but operators."""
    pool = descriptor_pool.Default()
    for service, need in (
        ("taxon.v1.ClassificationService", "classify"),
        ("inference.GRPCInferenceService", "inference"),
        ("grpc.health.v1.Health", gate.OPEN),
    ):
        for method in pool.FindServiceByName(service).methods:
            name = f"/{service}/{method.name}"
            assert need_of(name) == gate.NEEDS.get(name, need)
    assert need_of("/inference.GRPCInferenceService/RepositoryModelUnload") == "admin"
    assert need_of("/taxon.v1.ModelAdminService/Anything") == "admin"
    assert need_of("/taxon.v1.FeedbackService/SubmitFeedback") == "feedback"
    assert need_of("/taxon.v1.ExplanationService/Explain") == "explain"
    assert need_of("/taxon.v1.FutureService/Anything") == "admin"
    assert need_of("") == need_of("/") == need_of("nonsense") == "admin"


async def test_a_handler_that_ends_in_whatever_way_is_over():
    """Answers, failures and cancellations are counted down, of streams too."""
    key, key_id, key_sha256 = callers.new_key()
    caller = callers.Caller(
        name="one", groups=["classify"], key_id=key_id, key_sha256=key_sha256, created=datetime.now(UTC)
    )
    counted, board = [], Board(1)
    door = Gate(CallerLimits(max_concurrent_calls=1), lambda _, *what: counted.append(what[:2]), board, 0)
    door.let_in(callers.Callers(callers=[caller]), {"one": 5})
    begun, go = asyncio.Event(), asyncio.Event()

    async def answer(request, context):
        begun.set()
        if request == b"fail":
            raise RuntimeError
        if request == b"wait":
            await go.wait()
        return b"done"

    async def stream(request, context):
        yield await answer(request, context)

    server = grpc.aio.server(interceptors=[door])
    methods = {
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("taxon.v1.ClassificationService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary("/taxon.v1.ClassificationService/Answer")
        streamed = channel.unary_stream("/taxon.v1.ClassificationService/Stream")

        async def all_of(request):
            return [part async for part in streamed(request, metadata=bearing(key))]

        usage = door._usages["one"]

        def under_way_count():
            return board.under_way_count(5)

        for call in (lambda what: unary(what, metadata=bearing(key)), all_of):
            assert await call(b"x") in (b"done", [b"done"])
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"fail")
            await until(lambda: under_way_count() == 0)
            begun.clear()
            waiting = asyncio.ensure_future(call(b"wait"))
            await begun.wait()
            assert under_way_count() == 1
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call(b"x")
            assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            waiting.cancel()
            await asyncio.wait([waiting])
            await until(lambda: under_way_count() == 0)
        door.let_in(callers.Callers(callers=[caller]), {"one": 5})
        assert door._usages["one"] is usage  # a file that is read again forgets nothing
    await server.stop(None)
    assert counted == [("CALLER_LIMIT_EXCEEDED", "one")] * 2


def test_who_expires_has_expired():
    key, key_id, key_sha256 = callers.new_key()
    now = datetime.now(UTC)
    entry_of = {"name": "a", "groups": ["classify"], "key_id": key_id, "key_sha256": key_sha256, "created": now}
    for hours, found in ((1, True), (-1, False)):
        caller = callers.Caller(**entry_of, expires=now + timedelta(hours=hours))
        assert (callers.Known([caller]).by_key(key) is caller) == found
