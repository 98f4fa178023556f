"""Every call of every service is counted once, in one series, whatever becomes of it."""

import contextlib

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.api.reflection import V1
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import model_admin_service_pb2 as admin
from taxon.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from tests.fakes import COLORS, picture
from tests.inference_requests import CONTROL, encoded, stub_of
from tests.waiting import until

RED = picture(COLORS["red"])


@contextlib.asynccontextmanager
async def served(serve, models, *flags):
    """A server, and a channel to its admin port."""
    async with (
        serve(models, "--admin-port", "0", *flags) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as channel,
    ):
        yield running, channel


def counted(running, **labels):
    """Sums of what was counted, by the labels that are not given."""
    sums = {}
    for sample in next(iter(running.server.metrics.requests.collect())).samples:
        if sample.name.endswith("_total") and sample.value and labels.items() <= sample.labels.items():
            rest = tuple(value for name, value in sample.labels.items() if name not in labels)
            sums[rest] = sums.get(rest, 0) + sample.value
    return sums


async def methods_of(channel):
    """Path and descriptor of every method that reflection tells of."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    for service in answers[0].list_services_response.service:
        known = reflection.SERVICE_NAME if service.name == V1 else service.name  # the same messages
        for method in descriptor_pool.Default().FindServiceByName(known).methods:
            yield f"/{service.name}/{method.name}", method


async def call(channel, path, method, body):
    streams = {True: "stream", False: "unary"}
    kind = getattr(channel, f"{streams[method.client_streaming]}_{streams[method.server_streaming]}")
    # Health is watched for ever.
    made = kind(path)(iter([body]) if method.client_streaming else body, timeout=0.5 if method.name == "Watch" else 10)
    with contextlib.suppress(grpc.aio.AioRpcError):
        if method.server_streaming:
            async for _ in made:
                pass
        else:
            await made


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff"], ids=["empty", "no message"])
async def test_every_method_is_counted_once(serve, models, body):
    tried = set()
    async with served(serve, models) as (running, admin_channel):
        for channel in (running.channel, admin_channel):
            async for path, method in methods_of(channel):
                whole = sum(counted(running).values())
                before = sum(counted(running, method=method.name).values())
                await call(channel, path, method, body)
                await until(lambda whole=whole: sum(counted(running).values()) > whole)
                assert sum(counted(running, method=method.name).values()) == before + 1, path
                assert sum(counted(running).values()) == whole + 1, path
                tried.add(path.split("/")[1])
    assert tried == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "taxon.v1.ClassificationService",
        "taxon.v1.ExplanationService",
        "taxon.v1.FeedbackService",
        "taxon.v1.ModelAdminService",
    }


async def test_operators_calls_are_counted_by_model(serve, models, refused):
    async with served(serve, models, *CONTROL) as (running, channel):
        stub, protocol = ModelAdminServiceStub(channel), stub_of(running)
        await stub.GetTraffic(admin.GetTrafficRequest(model_name="colors"))
        await refused(stub.GetTraffic(admin.GetTrafficRequest(model_name="invented")))
        await refused(stub.SetLabel(admin.SetLabelRequest(model_name="colors", label="7", model_version="1")))
        await stub.UnloadModel(admin.UnloadModelRequest(model_name="colors"))
        await stub.LoadModel(admin.LoadModelRequest(model_name="colors"))
        await protocol.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="colors"))
        await protocol.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="colors"))
        await protocol.ModelMetadata(oip.ModelMetadataRequest(name="colors"))
        await running.stub.GetModel(pb.GetModelRequest(model_name="colors"))
        with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
            await channel.unary_unary("/invented.Service/Invented")(b"")
        assert counted(running) == {
            ("GetTraffic", "colors", "OK"): 1,
            ("GetTraffic", "", "MODEL_NOT_FOUND"): 1,
            ("SetLabel", "colors", "FIELD_INVALID"): 1,
            ("UnloadModel", "colors", "OK"): 1,
            ("LoadModel", "colors", "OK"): 1,
            ("RepositoryModelUnload", "colors", "OK"): 1,
            ("RepositoryModelLoad", "colors", "OK"): 1,
            ("ModelMetadata", "colors", "OK"): 1,
            ("GetModel", "colors", "OK"): 1,
            ("", "", "UNIMPLEMENTED"): 1,
        }


async def test_inputs_are_counted_in_the_place_of_their_call(serve, models, refused):
    images = [RED, b"no picture", RED]
    async with served(serve, models) as (running, _):
        await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=[{"image": image} for image in images]))
        await refused(running.stub.BatchClassify(pb.BatchClassifyRequest()))
        requests = [encoded(RED), encoded(RED, model="invented"), encoded(RED)]
        assert len([answer async for answer in stub_of(running).ModelStreamInfer(iter(requests))]) == 3
        assert counted(running) == {
            ("BatchClassify", "colors", "OK"): 2,
            ("BatchClassify", "colors", "IMAGE_UNDECODABLE"): 1,
            ("BatchClassify", "", "FIELD_INVALID"): 1,
            ("ModelStreamInfer", "colors", "OK"): 2,
            ("ModelStreamInfer", "", "MODEL_NOT_FOUND"): 1,
        }
