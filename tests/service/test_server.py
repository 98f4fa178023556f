"""Start, readiness, metrics, reflection, drain: a real server in this process."""

import asyncio
import re
import threading
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from taxon.bundle import version_labels
from taxon.service import server
from taxon.service.api import health
from taxon.service.config import parse
from taxon.service.errors import StartError
from taxon.service.workers.worker_main import Worker
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import picture
from tests.service.thread_workers import ThreadWorkers
from tests.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", "taxon.v1.ClassificationService"])
async def test_health_by_check_and_watch(serve, models, service):
    request = health_pb2.HealthCheckRequest(service=service)
    async with serve(models) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        assert (await stub.Check(request)).status == SERVING
        watch = stub.Watch(request)
        assert (await watch.read()).status == SERVING
        running.server.stop()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF  # else a watcher would hold up the drain


async def test_health_of_an_unknown_service(serve, models):
    async with serve(models) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Check(health_pb2.HealthCheckRequest(service="birds"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(serve, models, version):
    async with serve(models) as running:
        call = running.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="taxon.v1.ClassificationService"),
        ]
        listed, file = [reply async for reply in call(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"taxon.v1.ClassificationService", "grpc.health.v1.Health"} <= names
    assert file.file_descriptor_response.file_descriptor_proto


async def test_reflection_can_be_off(serve, models):
    async with serve(models, "--reflection", "false") as running:
        address = "127.0.0.1:" + (models.parent / "port").read_text().strip()

        def ask():
            with grpc.insecure_channel(address) as channel:
                ProtoReflectionDescriptorDatabase(channel).get_services()

        with pytest.raises(grpc.RpcError) as failure:
            await asyncio.to_thread(ask)
        assert running.channel
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metrics_page(serve, models):
    async with serve(models, "--metrics-port", "0") as running:
        await running.stub.Classify(pb.ClassifyRequest(image=picture()))
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Classify(pb.ClassifyRequest(image=b""))

        def read():
            with urllib.request.urlopen(f"http://127.0.0.1:{running.server.metrics_port}/metrics") as page:
                return page.read().decode()

        page = await asyncio.to_thread(read)
    assert 'taxon_requests_total{method="Classify",model="colors",outcome="OK"} 1.0' in page
    assert 'taxon_requests_total{method="Classify",model="colors",outcome="IMAGE_UNDECODABLE"} 1.0' in page
    assert 'taxon_stage_seconds_count{model="colors",stage="inference",version="1"} 1.0' in page
    assert "taxon_in_flight_inputs 0.0" in page
    assert "taxon_queued_inputs 0.0" in page
    assert "taxon_serving 1.0" in page
    assert "taxon_worker_restarts 0.0" in page
    assert 'taxon_version_state{model="colors",state="READY",version="1"} 1.0' in page
    assert 'taxon_default_version{model="colors"} 1.0' in page
    memory = float(re.search(r'taxon_memory_bytes{process="server"} (\S+)', page)[1])
    assert 10e6 < memory < 10e9
    assert 'execution_provider="CPUExecutionProvider",model="colors",variant="fp32",version="1"} 1.0' in page


async def test_labels_are_on_the_page_also_those_of_what_is_not_served(serve, models):
    version_labels.write(models, "colors", version_labels.STABLE, 1)
    version_labels.write(models, "colors", "candidate", 7)
    async with serve(models) as running:
        assert running.counted("taxon_label_version", model="colors", label="stable") == 1
        assert running.counted("taxon_label_version", model="colors", label="candidate") == 7
        assert running.counted("taxon_version_state", model="colors", version="7", state="READY") == 0


async def test_the_queue_is_bounded(serve, models):
    async with serve(models, "--max-queued-requests", "1") as running:
        slow = pb.ClassifyRequest(image=picture(size=(2000, 2000)))
        outcomes = await asyncio.gather(*(running.stub.Classify(slow) for _ in range(12)), return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert 0 < len(failed) < 12
    assert {error.code() for error in failed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all("grpc-retry-pushback-ms" in dict(error.trailing_metadata()) for error in failed)


async def test_the_servers_ceiling_answers_calls_without_a_deadline(serve, models, refused):
    async with serve(models, "--max-call-seconds", "0.000001") as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=picture())))
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")


async def test_a_taken_port_is_said_to_be_taken(serve, models):
    async with serve(models):
        port = (models.parent / "port").read_text().strip()
        words = ["--models", str(models), "--listen", f"[::]:{port}", "--insecure"]
        another = server.Server(parse(words), ThreadWorkers)
        with pytest.raises(StartError, match=f":{port} cannot be bound"):
            await another.serve()


async def test_a_port_file_that_cannot_be_written_is_named(models, tmp_path):
    file = tmp_path / "missing" / "port"
    words = ["--models", str(models), "--listen", "127.0.0.1:0", "--port-file", str(file), "--device", "cpu"]
    with pytest.raises(StartError, match=f"--port-file {file} cannot be written: No such file"):
        await server.Server(parse(words), ThreadWorkers).serve()


async def test_memory_that_the_container_does_not_have_is_named(models):
    words = ["--models", str(models), "--listen", "127.0.0.1:0", "--device", "cpu", "--max-decoding-bytes", str(2**44)]
    with pytest.raises(StartError, match="--max-decoding-bytes"):
        server.Server(parse(words), ThreadWorkers)


@pytest.mark.parametrize(("bind_when_ready", "binds"), [("true", False), ("false", True)])
async def test_when_the_port_is_bound(models, tmp_path, bind_when_ready, binds):
    """A proxy that cannot ask for health takes an open port for a server that serves."""
    proved = threading.Event()

    class Slow(Worker):
        def load(self, order, tell):
            assert proved.wait(30)
            return super().load(order, tell)

    class SlowWorkers(ThreadWorkers):
        def worker(self, settings, arenas):
            return Slow(settings, arenas)

    words = ["--models", models, "--listen", "127.0.0.1:0", "--port-file", tmp_path / "port", "--device", "cpu"]
    words += ["--bind-when-ready", bind_when_ready]
    starting = server.Server(parse([*map(str, words)]), SlowWorkers)
    serving = asyncio.create_task(starting.serve())
    await until(lambda: any(state.state == "LOADING" for state in starting.repository.index()))
    if binds:
        await until((tmp_path / "port").exists)
    assert (tmp_path / "port").exists() == binds
    proved.set()
    await until((tmp_path / "port").exists)
    await until(lambda: starting.serving)
    starting.stop()
    await serving


def test_wrong_settings_are_named(capsys):
    assert server.main(["--max-queued-requests", "0"]) == 2
    assert "taxon serve: --max-queued-requests: " in capsys.readouterr().err


async def test_the_probe_exits_by_readiness(serve, models, capsys):
    async with serve(models):
        address = "127.0.0.1:" + (models.parent / "port").read_text().strip()
        assert await asyncio.to_thread(health.main, ["--server", address]) == 0
        assert await asyncio.to_thread(health.main, ["--server", address, "--wait-s", "5"]) == 0
        assert await asyncio.to_thread(health.main, ["--server", address, "--service", "birds"]) == 1
    assert await asyncio.to_thread(health.main, ["--server", address, "--timeout-s", "0.5"]) == 1
    assert capsys.readouterr().out.count("SERVING\n") == 2


async def test_the_probe_finds_the_server_by_the_variable_that_the_server_heeds(serve, models, monkeypatch):
    """As a container's health check does, which cannot know the address."""
    async with serve(models):
        port = (models.parent / "port").read_text().strip()
        for listen, status in ((f"127.0.0.1:{port}", 0), (f"[::]:{port}", 0), (f"0.0.0.0:{port}", 0), ("[::]:1", 1)):
            monkeypatch.setenv("TAXON_LISTEN", listen)
            assert await asyncio.to_thread(health.main, ["--timeout-s", "5"]) == status


async def test_the_probe_waits_for_a_server_that_ends_and_comes_again():
    async def begin(serving, port):
        one, readiness = grpc.aio.server(options=[("grpc.so_reuseport", 0)]), health.Readiness()
        readiness.register(one)
        readiness.set_serving(serving)
        port = one.add_insecure_port(f"127.0.0.1:{port}")
        await one.start()
        return one, port

    first, port = await begin(False, 0)
    words = ["--server", f"127.0.0.1:{port}", "--wait-s", "30"]
    probe = asyncio.create_task(asyncio.to_thread(health.main, words))
    await asyncio.sleep(0.3)  # it watches
    await first.stop(None)
    second, _ = await begin(True, port)
    assert await probe == 0
    await second.stop(None)
