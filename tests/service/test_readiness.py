"""Readiness is what is loaded and what can run, at every moment."""

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon.bundle import version_labels
from taxon.inference import open_inference_service_pb2 as oip
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle
from tests.inference_requests import CONTROL, stub_of
from tests.tensor_models import simple
from tests.waiting import until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
RED = picture(COLORS["red"])


async def states(running):
    """What health says in two ways, and the Open Inference Protocol."""
    health = await health_pb2_grpc.HealthStub(running.channel).Check(health_pb2.HealthCheckRequest())
    ready = await stub_of(running).ServerReady(oip.ServerReadyRequest())
    assert ready.ready == (health.status == SERVING)
    return health.status


async def test_it_follows_what_is_loaded_by_call(serve, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    async with serve(root, *CONTROL) as running:
        stub = stub_of(running)
        assert await states(running) == NOT_SERVING
        toy_bundle(root)
        await stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="colors"))
        assert await states(running) == SERVING
        await stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="colors"))
        assert await states(running) == NOT_SERVING
        simple(root)
        await stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="simple"))
        assert await states(running) == SERVING


async def test_unloading_the_last_bundle_leaves_a_server_of_graphs_ready(serve, models):
    simple(models)
    async with serve(models, *CONTROL) as running:
        await stub_of(running).RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="colors"))
        assert await states(running) == SERVING


async def test_a_version_that_nobody_promoted_never_answers_by_default(serve, models, refused):
    """stable = 1, and 2 failed the gate. A third is published and promoted: it is loaded because the label says so."""
    toy_bundle(models)
    version_labels.write(models, "colors", "stable", 1)
    async with serve(models) as running:

        async def answered_by(**words):
            request = pb.ClassifyRequest(image=RED, model_name="colors", **words)
            return (await running.stub.Classify(request, timeout=10)).model_version

        assert await answered_by() == "1"
        toy_bundle(models)
        version_labels.write(models, "colors", "stable", 3)
        versions = set()
        while "3" not in versions:
            versions.add(await answered_by())
        assert versions == {"1", "3"}
        version_labels.write(models, "colors", "stable", 9)  # there is no such version
        await until(lambda: running.server.repository.known.traffic["colors"].labels["stable"] == 9)
        assert await answered_by() == "3"
        assert await answered_by(model_version="2") == "2"


async def test_a_stable_version_that_is_refused_is_not_replaced_by_another(serve, models, refused):
    broken = toy_bundle(models)
    (broken.folder / "model.onnx").write_bytes(b"broken")
    version_labels.write(models, "colors", "stable", 2)
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=RED, model_name="colors"), timeout=10))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "version 2" in error.message
        one = pb.ClassifyRequest(image=RED, model_name="colors", model_version="1")
        assert (await running.stub.Classify(one, timeout=10)).model_version == "1"


@pytest.mark.parametrize("unreadable", ["lost+found", "colors/1/model.onnx"])
async def test_what_cannot_be_read_costs_nobody_else(serve, models, unreadable, monkeypatch):
    """A volume's lost+found, a file of mode 0600: the tests run as root, so the refusal is played."""
    toy_bundle(models, "fine")
    (models / "lost+found").mkdir()
    wanted, opened, listed = models / unreadable, Path.open, Path.iterdir

    def open_or_not(self, *words, **options):
        if self == wanted:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *words, **options)

    def list_or_not(self):
        if self == wanted:
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "open", open_or_not)
    monkeypatch.setattr(Path, "iterdir", list_or_not)
    async with serve(models) as running:
        request = pb.ClassifyRequest(image=RED, model_name="fine")
        assert (await running.stub.Classify(request, timeout=10)).classifications[0].label == "red"
        assert await states(running) == SERVING
