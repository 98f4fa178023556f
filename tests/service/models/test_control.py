"""Loading and unloading by call, and what the repository says of itself."""

import asyncio

import grpc
import numpy as np
import pytest

from taxon.inference import open_inference_service_pb2 as pb
from taxon.service.models.model import VersionState
from tests.fakes import toy_bundle
from tests.inference_requests import CONTROL, PICTURES, encoded, pair, stub_of
from tests.tensor_models import simple, strings

Code = grpc.StatusCode


async def test_index_says_what_is_refused_and_why(serve, models):
    strings(models)
    async with serve(models) as running:
        stub = stub_of(running)
        listed = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
        ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [(one.name, one.version, one.state) for one in listed.models] == [
        ("colors", "1", "READY"),
        ("strings", "1", "UNAVAILABLE"),
    ]
    assert "tensor(string)" in listed.models[1].reason
    assert [one.name for one in ready.models] == ["colors"]


async def test_unload_and_load_again(serve, models, refused):
    async with serve(models, *CONTROL) as running:
        stub = stub_of(running)
        await stub.ModelInfer(encoded(PICTURES[0]))
        assert "model_repository" in (await stub.ServerMetadata(pb.ServerMetadataRequest())).extensions
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="colors"))
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="colors"))).ready
        assert (await refused(stub.ModelInfer(encoded(PICTURES[0])))).code is Code.NOT_FOUND
        (gone,) = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert (gone.state, gone.reason) == ("UNAVAILABLE", "unloaded")
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="colors"))).ready
        (figures,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        assert figures.inference_count == 0  # they count from the load on
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).outputs


async def test_load_finds_new_versions_and_new_models(serve, models):
    async with serve(models, *CONTROL) as running:
        stub = stub_of(running)
        toy_bundle(models)
        simple(models)
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
        # KServe's layout: the name is field 1.
        loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="simple"))
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).model_version == "2"
        assert (await stub.ModelInfer(pair(np.zeros((1, 16)), np.zeros((1, 16))))).outputs
    assert (loaded.model_name, loaded.is_loaded) == ("simple", True)


async def test_a_graph_is_read_again_under_load(serve, tmp_path):
    simple(tmp_path / "models")
    zeros, many = np.zeros((1, 16)), np.zeros((100, 16))
    async with serve(tmp_path / "models", *CONTROL) as running:
        stub = stub_of(running)
        for _ in range(3):
            calls = [stub.ModelInfer(pair(zeros, zeros)) for _ in range(20)]
            calls += [stub.ModelInfer(pair(many, many)) for _ in range(5)]  # its inputs come in turns
            await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simple"))
            assert all(response.outputs for response in await asyncio.gather(*calls))


async def test_a_load_is_answered_by_what_came_of_it_though_an_unload_follows_at_once(serve, models):
    async with serve(models, *CONTROL) as running:
        stub = stub_of(running)
        for _ in range(5):
            load = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
            unload = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="colors"))
            assert (await load).is_loaded
            assert (await unload).is_unloaded


async def test_who_loads_and_unloads_is_answered_once_every_front_knows(serve, models, monkeypatch):
    """And no model ends before: who has not heard of it would send callers there."""
    async with serve(models, *CONTROL) as running:
        server, stub, heard = running.server, stub_of(running), []

        async def hear(model=0):
            await asyncio.sleep(0.01)
            heard.append((model, bool(model) and server.pool.dispatcher._queues.get(model) is not None))

        monkeypatch.setattr(server.fronts, "heard", hear)
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="colors"))
        assert heard == [(1, True), (0, False)]
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
        assert heard[2:] == [(0, False)]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("birds", Code.NOT_FOUND, "MODEL_NOT_FOUND"),
        ("../models/colors", Code.INVALID_ARGUMENT, "FIELD_INVALID"),
        ("", Code.INVALID_ARGUMENT, "FIELD_INVALID"),
        ("strings", Code.FAILED_PRECONDITION, "MODEL_REFUSED"),
    ],
)
async def test_models_that_cannot_be_loaded(serve, models, refused, name, code, reason):
    strings(models)
    async with serve(models, *CONTROL) as running:
        error = await refused(stub_of(running).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name)))
    assert (error.code, error.reason) == (code, reason)
    assert not name or not name.isalpha() or "failed to load" in error.message  # Triton's clients look for it


async def test_a_long_name_is_not_told_back_whole(serve, models, refused):
    """An error travels in headers: one that is too long for them would reach the caller as another."""
    async with serve(models, *CONTROL) as running:
        request = pb.RepositoryModelUnloadRequest(model_name="x" * 9000)
        error = await refused(stub_of(running).RepositoryModelUnload(request))
    assert (error.code, error.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
    assert len(error.message) < 300


async def test_files_never_come_by_call(serve, models, refused):
    parameters = {"file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"graph")}
    async with serve(models, *CONTROL) as running:
        error = await refused(
            stub_of(running).RepositoryModelLoad(
                pb.RepositoryModelLoadRequest(model_name="colors", parameters=parameters)
            )
        )
    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "UNSUPPORTED")


@pytest.mark.parametrize("verb", ["Load", "Unload"])
async def test_control_is_off_unless_switched_on(serve, models, refused, verb):
    async with serve(models) as running:
        call = getattr(stub_of(running), f"RepositoryModel{verb}")
        error = await refused(call(getattr(pb, f"RepositoryModel{verb}Request")(model_name="colors")))
        assert (await stub_of(running).ModelReady(pb.ModelReadyRequest(name="colors"))).ready
    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "UNSUPPORTED")


async def test_what_is_still_being_loaded_is_unavailable_and_not_unknown(serve, models, refused):
    """A balancer may try elsewhere; NOT_FOUND would tell the caller that the name is wrong."""
    async with serve(models) as running:
        running.server.repository.note(VersionState("late", 1, "LOADING"))
        error = await refused(stub_of(running).ModelInfer(encoded(PICTURES[0], model="late")))
        ready = await stub_of(running).ModelReady(pb.ModelReadyRequest(name="late"))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "NOT_SERVING")
    assert not ready.ready
