"""The operators' service, on whole servers: what it changes holds at once, and after a restart."""

from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from taxon.bundle import default_history, traffic, version_labels
from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.config import parse
from taxon.training.releases import promotions
from taxon.v1 import classification_service_pb2, model_admin_service_pb2_grpc
from taxon.v1 import model_admin_service_pb2 as pb
from tests.fakes import picture, toy_bundle
from tests.inference_requests import stub_of

CANARY, SHADOW = classification_service_pb2.TRAFFIC_ROLE_CANARY, classification_service_pb2.TRAFFIC_ROLE_SHADOW


@pytest.fixture
def root(models):
    for _ in range(2):
        toy_bundle(models)
    version_labels.write(models, "colors", "stable", 1)
    return models


@asynccontextmanager
async def administered(serve, root, *flags):
    """A server, and a stub of its admin port."""
    async with (
        serve(root, "--admin-port", "0", *flags) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as channel,
    ):
        yield running, model_admin_service_pb2_grpc.ModelAdminServiceStub(channel)


async def answered_by(running, version=""):
    request = classification_service_pb2.ClassifyRequest(image=picture(), model_name="colors", model_version=version)
    return (await running.stub.Classify(request, timeout=10)).model_version


async def test_a_default_holds_at_once_and_after_a_restart_and_can_be_taken_back(serve, root):
    async with administered(serve, root) as (running, stub):
        request = pb.SetDefaultVersionRequest(model_name="colors", model_version="3", reason="seen in the shadow")
        for _ in range(2):
            told = (await stub.SetDefaultVersion(request)).traffic
            assert told == pb.Traffic(default_version="3", labels={"stable": "3"})
        assert await answered_by(running) == "3"
    async with serve(root) as running:
        assert await answered_by(running) == "3"
    (entry,) = default_history.read(root, "colors")
    assert (entry["from"], entry["to"], entry["reason"]) == (1, 3, "seen in the shadow")
    assert promotions.rollback(root, "colors") == 1


async def test_what_is_changed_is_answered_once_every_front_goes_by_it(serve, root, monkeypatch):
    async with administered(serve, root) as (running, stub):
        seen = []

        async def let_go(model):
            seen.append((model, running.server.repository.default_version("colors")))

        monkeypatch.setattr(running.server.repository.holds, "let_go", let_go)  # what a front is asked
        await stub.SetDefaultVersion(pb.SetDefaultVersionRequest(model_name="colors", model_version="3"))
        assert seen == [(0, 3)]


async def test_labels_are_given_and_taken(serve, root):
    async with administered(serve, root) as (running, stub):
        await stub.SetLabel(pb.SetLabelRequest(model_name="colors", label="candidate", model_version="2"))
        assert await answered_by(running, "candidate") == "2"
        told = await stub.SetLabel(pb.SetLabelRequest(model_name="colors", label="next", model_version="candidate"))
        assert dict(told.traffic.labels) == {"stable": "1", "candidate": "2", "next": "2"}
        for _ in range(2):
            told = await stub.DeleteLabel(pb.DeleteLabelRequest(model_name="colors", label="candidate"))
        assert dict(told.traffic.labels) == version_strings(root) == {"stable": "1", "next": "2"}


def version_strings(root):
    return {label: str(version) for label, version in version_labels.read(root, "colors").items()}


async def test_trials_begin_and_end(serve, root):
    async with administered(serve, root) as (running, stub):
        bounds = pb.CanaryBounds(min_call_count=50, max_latency_ratio=1.5)
        canary = pb.SetCanaryRequest(model_name="colors", model_version="2", share=1.0, bounds=bounds)
        told = (await stub.SetCanary(canary)).traffic
        assert told.canary.version == "2"
        assert told.canary.trial == classification_service_pb2.TrafficTrial(role=CANARY, share=1.0)
        whole = {"window_call_count": 500, "max_error_increase": 0.02, "max_nan_increase": 0.0}
        assert told.canary.bounds == pb.CanaryBounds(min_call_count=50, max_latency_ratio=1.5, **whole)
        assert await answered_by(running) == "2"
        await stub.SetShadow(pb.SetShadowRequest(model_name="colors", model_version="3", share=0.5))
        told = (await stub.GetTraffic(pb.GetTrafficRequest(model_name="colors"))).traffic
        assert (told.shadow.version, told.shadow.trial.role) == ("3", SHADOW)
        assert traffic.read(root, "colors").versions == {1, 2, 3}
        running.server.repository.roll_back("colors", "it was bad")
        told = (await stub.GetTraffic(pb.GetTrafficRequest(model_name="colors"))).traffic
        assert told.canary.trial.reason == "it was bad"
        assert await answered_by(running) == "1"
        assert (await stub.SetCanary(canary)).traffic.canary.trial.reason == ""
        assert await answered_by(running) == "2"
        told = (await stub.ClearTrials(pb.ClearTrialsRequest(model_name="colors", roles=[CANARY]))).traffic
        assert (told.HasField("canary"), told.HasField("shadow")) == (False, True)
        told = (await stub.ClearTrials(pb.ClearTrialsRequest(model_name="colors"))).traffic
        assert not told.HasField("shadow")
        assert await answered_by(running) == "1"


async def test_models_are_loaded_and_unloaded_by_either_protocol(serve, root, refused):
    async with administered(serve, root, "--model-control", "explicit") as (running, stub):
        protocol = stub_of(running)
        await stub.UnloadModel(pb.UnloadModelRequest(model_name="colors"))
        index = (await protocol.RepositoryIndex(oip.RepositoryIndexRequest())).models
        assert {(one.state, one.reason) for one in index} == {("UNAVAILABLE", "unloaded")}
        assert (await stub.ListQuarantinedVersions(pb.ListQuarantinedVersionsRequest())).versions == []
        canary = pb.SetCanaryRequest(model_name="colors", model_version="2", share=1)
        assert (await refused(stub.SetCanary(canary))).reason == "MODEL_NOT_FOUND"
        loaded = await stub.LoadModel(pb.LoadModelRequest(model_name="colors"))
        assert loaded.model_versions == ["1", "2", "3"]
        await protocol.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="colors"))
        traffic_now = (await stub.GetTraffic(pb.GetTrafficRequest(model_name="colors"))).traffic
        assert traffic_now.default_version == ""


async def test_what_was_refused_is_listed_in_pages(serve, root):
    for version in (2, 3):
        (root / "colors" / str(version) / "model.onnx").write_bytes(b"broken")
    async with administered(serve, root) as (_, stub):
        listed, token = [], ""
        while not listed or token:
            request = pb.ListQuarantinedVersionsRequest(page_size=1, page_token=token)
            page = await stub.ListQuarantinedVersions(request)
            (one,) = page.versions
            listed.append((one.model_name, one.model_version, "sha256" in one.reason))
            token = page.next_page_token
    assert listed == [("colors", "2", True), ("colors", "3", True)]


BAD = [
    ("SetDefaultVersion", pb.SetDefaultVersionRequest(model_name="colors"), "FIELD_INVALID"),
    ("SetDefaultVersion", pb.SetDefaultVersionRequest(model_version="2"), "FIELD_INVALID"),
    ("SetDefaultVersion", pb.SetDefaultVersionRequest(model_name="colors", model_version="9"), "MODEL_NOT_FOUND"),
    ("SetDefaultVersion", pb.SetDefaultVersionRequest(model_name="birds", model_version="1"), "MODEL_NOT_FOUND"),
    (
        "SetDefaultVersion",
        pb.SetDefaultVersionRequest(model_name="colors", model_version="2", reason="x" * 1001),
        "FIELD_INVALID",
    ),
    ("SetLabel", pb.SetLabelRequest(model_name="colors", model_version="2", label="stable"), "FIELD_INVALID"),
    ("SetLabel", pb.SetLabelRequest(model_name="colors", model_version="2", label="7"), "FIELD_INVALID"),
    ("SetLabel", pb.SetLabelRequest(model_name="colors", model_version="2", label="../x"), "FIELD_INVALID"),
    ("DeleteLabel", pb.DeleteLabelRequest(model_name="colors"), "FIELD_INVALID"),
    ("DeleteLabel", pb.DeleteLabelRequest(model_name="birds", label="x"), "MODEL_NOT_FOUND"),
    ("SetCanary", pb.SetCanaryRequest(model_name="colors", model_version="1", share=0.5), "FIELD_INVALID"),
    ("SetCanary", pb.SetCanaryRequest(model_name="colors", model_version="2"), "FIELD_INVALID"),
    ("SetCanary", pb.SetCanaryRequest(model_name="colors", model_version="2", share=float("nan")), "FIELD_INVALID"),
    (
        "SetCanary",
        pb.SetCanaryRequest(
            model_name="colors", model_version="2", share=0.5, bounds=pb.CanaryBounds(window_call_count=0)
        ),
        "FIELD_INVALID",
    ),
    ("SetShadow", pb.SetShadowRequest(model_name="colors", model_version="2", share=1.5), "FIELD_INVALID"),
    ("ClearTrials", pb.ClearTrialsRequest(model_name="colors", roles=[0]), "FIELD_INVALID"),
    ("ClearTrials", pb.ClearTrialsRequest(model_name="../colors"), "MODEL_NOT_FOUND"),
    ("GetTraffic", pb.GetTrafficRequest(), "FIELD_INVALID"),
    ("GetTraffic", pb.GetTrafficRequest(model_name="birds"), "MODEL_NOT_FOUND"),
    ("LoadModel", pb.LoadModelRequest(), "FIELD_INVALID"),
    ("LoadModel", pb.LoadModelRequest(model_name="../x"), "FIELD_INVALID"),
    ("LoadModel", pb.LoadModelRequest(model_name="birds"), "MODEL_NOT_FOUND"),
    ("UnloadModel", pb.UnloadModelRequest(model_name="birds"), "MODEL_NOT_FOUND"),
    ("ListQuarantinedVersions", pb.ListQuarantinedVersionsRequest(page_size=-1), "FIELD_INVALID"),
    ("ListQuarantinedVersions", pb.ListQuarantinedVersionsRequest(page_token="x"), "FIELD_INVALID"),
]


async def test_what_cannot_be_is_refused_and_changes_nothing(serve, root, refused):
    before = (root / "colors" / "traffic.json").read_text()
    async with administered(serve, root) as (_, stub):
        for method, request, reason in BAD:
            assert (await refused(getattr(stub, method)(request))).reason == reason, (method, request)
    assert (root / "colors" / "traffic.json").read_text() == before
    assert not (root / "birds").exists()
    assert default_history.read(root, "colors") == []


@pytest.mark.parametrize(
    ("play", "why"),
    [
        (lambda patch: patch.setattr(traffic.atomic_files, "write", full), "No space left on device"),
        (lambda patch: patch.setattr(traffic, "read", damaged), "is not JSON"),
    ],
)
async def test_a_repository_that_cannot_be_written_is_told_of(serve, root, refused, monkeypatch, play, why):
    async with administered(serve, root) as (running, stub):
        with monkeypatch.context() as patch:
            play(patch)
            request = pb.SetLabelRequest(model_name="colors", model_version="2", label="next")
            error = await refused(stub.SetLabel(request))
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE")
            assert why in error.message
        assert await answered_by(running) == "1"


def full(*_):
    raise OSError(28, "No space left on device")


def damaged(root, name):
    raise traffic.BundleError(f"{name}/traffic.json is not JSON")


async def test_it_is_closed_unless_it_is_opened_and_its_callers_are_apart(serve, root):
    async with serve(root) as running:
        assert running.server.admin_port is None
    async with administered(serve, root) as (running, _):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await running.channel.unary_unary("/taxon.v1.ModelAdminService/GetTraffic")(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as channel:
            reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            names = {service.name async for answer in reflected for service in answer.list_services_response.service}
    assert "taxon.v1.ModelAdminService" in names
    assert "taxon.v1.ClassificationService" not in names


def test_it_is_open_to_this_machine_alone_unless_it_is_said():
    settings = parse(["--admin-port", "50052"])
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 50052)
