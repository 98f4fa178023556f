"""A worker that is killed at each step of a load and of a batch. Run by `make test-faults`."""

import sys

import grpc
import pytest

from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.workers import worker_process
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle
from tests.inference_requests import CONTROL, stub_of
from tests.service.dying_worker import BATCH_STEPS, LOAD_STEPS
from tests.waiting import until

pytestmark = pytest.mark.faults

RED = picture(COLORS["red"])


@pytest.fixture
def mortal(monkeypatch, serve):
    monkeypatch.setattr(worker_process, "PROGRAM", (sys.executable, "-m", "tests.service.dying_worker"))
    return lambda *words: serve(*words, workers=WorkerProcesses)


async def label(running, model):
    request = pb.ClassifyRequest(image=RED, model_name=model)
    return (await running.stub.Classify(request, timeout=20)).classifications[0].label


@pytest.mark.parametrize("step", LOAD_STEPS)
async def test_at_a_load(mortal, models, step):
    """Neither the model nor the one that is served beside it is worse off."""
    name = f"dies-{step}"
    async with mortal(models, "--workers", "2", *CONTROL) as running:
        await until(lambda: running.server.pool.serving_count == 2)
        toy_bundle(models, name)
        load = stub_of(running).RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=name), timeout=20)
        answers = []
        while not load.done():
            answers.append(await label(running, "colors"))
        await load
        assert (models.parent / f"died-{step}").exists()
        assert set(answers) == {"red"}
        assert await label(running, name) == "red"
        await until(lambda: running.server.pool.serving_count == 2)


@pytest.mark.parametrize("step", BATCH_STEPS)
async def test_at_a_batch(mortal, models, refused, step):
    """Its caller is told to try again; the next one is answered."""
    name = f"dies-{step}"
    toy_bundle(models, name)
    async with mortal(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        call = running.stub.Classify(pb.ClassifyRequest(image=RED, model_name=name), timeout=20)
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "died" in error.message
        assert (models.parent / f"died-{step}").exists()
        assert await label(running, name) == await label(running, "colors") == "red"
        assert running.counted("taxon_in_flight_inputs") == 0
        await until(lambda: running.server.pool.serving_count == 2)
        assert await label(running, name) == "red"
