"""Start, readiness, metrics, reflection, drain: a real server in this process."""

import asyncio
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from taxon.service import server
from taxon.service.api import health
from taxon.service.config import parse
from taxon.service.errors import StartError
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import picture
from tests.service.thread_workers import ThreadWorkers

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
    assert 'taxon_requests_total{method="Classify",outcome="OK"} 1.0' in page
    assert 'taxon_requests_total{method="Classify",outcome="IMAGE_UNDECODABLE"} 1.0' in page
    assert 'taxon_stage_seconds_count{model="colors",stage="inference"} 1.0' in page
    assert "taxon_in_flight_inputs 0.0" in page
    assert 'execution_provider="CPUExecutionProvider",model="colors",variant="fp32",version="1"} 1.0' in page


async def test_the_queue_is_bounded(serve, models):
    async with serve(models, "--max-queued-requests", "1") as running:
        calls = [running.stub.Classify(pb.ClassifyRequest(image=picture(size=(2000, 2000)))) for _ in range(12)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
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
        with pytest.raises(StartError, match=f":{port} cannot be bound"):
            await server.Server(parse(["--models", str(models), "--listen", f"[::]:{port}"])).serve()


async def test_a_file_for_the_port_that_cannot_be_written_ends_the_start(models):
    words = ["--models", str(models), "--listen", "127.0.0.1:0", "--device", "cpu", "--port-file", "/nowhere/port"]
    with pytest.raises(StartError, match=r"--port-file /nowhere/port cannot be written: No such file"):
        await server.Server(parse(words), ThreadWorkers).serve()


def test_wrong_settings_are_named(capsys):
    assert server.main(["--max-queued-requests", "0"]) == 2
    assert "max_queued_requests" in capsys.readouterr().err


async def test_the_probe_exits_by_readiness(serve, models, capsys):
    async with serve(models):
        address = "127.0.0.1:" + (models.parent / "port").read_text().strip()
        assert await asyncio.to_thread(health.main, ["--server", address]) == 0
        assert await asyncio.to_thread(health.main, ["--server", address, "--wait-s", "5"]) == 0
        assert await asyncio.to_thread(health.main, ["--server", address, "--service", "birds"]) == 1
    assert await asyncio.to_thread(health.main, ["--server", address, "--timeout-s", "0.5"]) == 1
    assert capsys.readouterr().out.count("SERVING\n") == 2
