"""A canary, from its declaration to its rollback, on whole servers."""

import asyncio
import re
import sys

import grpc
import onnx
import pytest
from onnx import numpy_helper

from taxon.bundle import traffic, version_labels
from taxon.bundle.traffic import Bounds, Canary, Shadow
from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.workers import worker_process
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import toy_bundle
from tests.inference_requests import stub_of
from tests.service.thread_workers import ThreadWorkers
from tests.waiting import until

BOUNDS = Bounds(window=20, min_calls=10)
USUAL, POISON = (3.0, 0.0, 0.0, 0.0), (3.0, 0.0, 0.0, 1e10)


@pytest.fixture
def root(tmp_path):
    """Two versions of one model; for a poison the second one's scores are not numbers."""
    first = toy_bundle(tmp_path / "models", features=True)
    graph = onnx.load_from_string(first.read("model.onnx"))
    (weights,) = [constant for constant in graph.graph.initializer if constant.name == "weights"]
    values = numpy_helper.to_array(weights).copy()
    values[3] = 1e30
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    toy_bundle(tmp_path / "models", features=True, graph=graph.SerializeToString())
    version_labels.write(tmp_path / "models", "colors", "stable", 1)
    return tmp_path / "models"


def declare(root, share):
    canary = Canary(version=2, share=share, bounds=BOUNDS, declared=traffic.now())
    traffic.change(root, "colors", lambda before: before.changed(canary=canary))


def tensors(values=USUAL, **words):
    tensor = oip.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend(values)
    return oip.ModelInferRequest(model_name="colors", inputs=[tensor], **words)


class Caller:
    def __init__(self, running):
        self.running = running

    async def version(self, values=USUAL, **words):
        request = pb.ClassifyRequest(features=pb.Features(values=values), model_name="colors", **words)
        return (await self.running.stub.Classify(request, timeout=10)).model_version

    async def version_by(self, method, values=USUAL, **words):
        if method == "Classify":
            return await self.version(values, **words)
        stub, request = stub_of(self.running), tensors(values, **words)
        if method == "ModelInfer":
            return (await stub.ModelInfer(request, timeout=10)).model_version
        (answer,) = [answer async for answer in stub.ModelStreamInfer(iter([request]), timeout=10)]
        assert answer.error_message == ""
        return answer.infer_response.model_version

    async def trial(self, version="2"):
        request = pb.GetModelRequest(model_name="colors", model_version=version)
        return (await self.running.stub.GetModel(request, timeout=10)).model.traffic_trial


@pytest.mark.parametrize(("fronts", "workers"), [("1", ThreadWorkers), ("2", WorkerProcesses)])
async def test_a_canary_answers_its_share_and_is_rolled_back_when_it_answers_no_numbers(serve, root, fronts, workers):
    declare(root, 0.5)
    async with serve(root, "--metrics-port", "0", "--fronts", fronts, workers=workers) as running:
        caller = Caller(running)
        keys = {str(key): await caller.version(routing_key=str(key)) for key in range(40)}
        assert set(keys.values()) == {"1", "2"}
        assert {key: await caller.version(routing_key=key) for key in keys} == keys
        assert {await caller.version(model_version="1", routing_key=key) for key in keys} == {"1"}
        assert await caller.trial() == pb.TrafficTrial(role=pb.TRAFFIC_ROLE_CANARY, share=0.5)
        assert await caller.trial("1") == pb.TrafficTrial()

        failed_count = 0
        while not (await caller.trial()).reason:
            try:
                assert await caller.version(POISON) == "1"
            except grpc.aio.AioRpcError as error:
                failed_count += error.code() == grpc.StatusCode.INTERNAL
            assert failed_count <= BOUNDS.min_calls
        assert failed_count >= 1
        assert "scores that are not numbers" in (await caller.trial()).reason
        assert {await caller.version(POISON, routing_key=key) for key in keys} == {"1"}
        page = await asyncio.to_thread(running.page)  # which asks the fronts
        assert 'taxon_canary_rollbacks_total{model="colors",version="2"} 1.0' in page
        assert 'taxon_traffic_trial{model="colors",role="canary",state="ROLLED_BACK",version="2"} 0.5' in page
        assert f'outcome="nan",part="canary",version="2"}} {failed_count:.1f}' in page

        declare(root, 1.0)  # as somebody does who has read why, and tries again
        await until(lambda: running.server.repository.trial("colors", 2).state == "RUNNING")
        while (await caller.trial()).reason:  # the other front has not heard of it
            pass
        assert await caller.version() == "2"
        version_labels.write(root, "colors", "stable", 2)
        await until(lambda: running.server.repository.trial("colors", 2) is None)
        assert running.server.repository.default_version("colors") == 2


async def test_a_canary_that_ends_workers_is_rolled_back_after_three(serve, tmp_path, monkeypatch):
    """The usual hundred would leave nobody a worker."""
    monkeypatch.setattr(worker_process, "PROGRAM", (sys.executable, "-m", "tests.service.dying_worker"))
    root = tmp_path / "models"
    for _ in range(2):
        toy_bundle(root, "fatal", features=True)
    version_labels.write(root, "fatal", "stable", 1)
    traffic.change(root, "fatal", lambda before: before.changed(canary=Canary(version=2, share=1.0)))
    async with serve(root, "--workers", "2", workers=WorkerProcesses) as running:
        request = pb.ClassifyRequest(features=pb.Features(values=USUAL), model_name="fatal")
        codes = []
        while grpc.StatusCode.OK not in codes:
            call = running.stub.Classify(request, timeout=10)
            codes.append(await call.code())
        assert codes.count(grpc.StatusCode.INTERNAL) == 3
        assert set(codes) <= {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
        trial = running.server.repository.trial("fatal", 2)
        assert (trial.state, trial.reason) == (
            "ROLLED_BACK",
            "3 of its last 3 calls ended their worker, of the default's 0",
        )


async def test_changes_of_traffic_lose_no_call(serve, root):
    changes = [
        {"canary": Canary(version=2, share=0.5, bounds=BOUNDS)},
        {"canary": Canary(version=2, share=1.0, bounds=BOUNDS)},
        {"canary": None, "shadow": Shadow(version=2, share=1.0)},
        {"labels": {"stable": 2}, "shadow": None},
        {"labels": {"stable": 1}},
    ]
    async with serve(root) as running:
        caller, answered, over = Caller(running), [], asyncio.Event()

        async def call():
            while not over.is_set():
                answered.append(await caller.version())

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(call())
            for fields in changes:
                declared = traffic.change(root, "colors", lambda before, fields=fields: before.changed(**fields))
                await until(lambda declared=declared: running.server.repository.known.traffic["colors"] == declared)
                begun = len(answered)
                await until(lambda begun=begun: len(answered) > begun + 100)
            over.set()
        assert set(answered) == {"1", "2"}
        assert set(answered[-20:]) == {"1"}


async def test_tensors_take_the_same_way(serve, root):
    declare(root, 0.5)
    async with serve(root) as running:
        stub = stub_of(running)

        async def version(key, **parameter):
            request = tensors()
            request.parameters["routing_key"].CopyFrom(oip.InferParameter(**(parameter or {"string_param": key})))
            return (await stub.ModelInfer(request, timeout=10)).model_version

        caller = Caller(running)
        keys = [str(key) for key in range(20)]
        found = [await version(key) for key in keys]
        assert set(found) == {"1", "2"}
        assert [await caller.version(routing_key=key) for key in keys] == found
        for wrong in ({"int64_param": 1}, {"string_param": "x" * 257}):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await version("", **wrong)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_key_that_is_too_long_is_refused(serve, root, refused):
    async with serve(root) as running:
        request = pb.ClassifyRequest(features=pb.Features(values=USUAL), routing_key="é" * 129)
        error = await refused(running.stub.Classify(request))
        assert (error.reason, error.others["BadRequest"].field_violations[0].field) == ("FIELD_INVALID", "routing_key")


async def test_a_canary_that_cannot_be_served_leaves_all_calls_to_the_default(serve, root):
    (root / "colors" / "2" / "model.onnx").write_bytes(b"broken")
    declare(root, 1.0)
    async with serve(root, "--metrics-port", "0") as running:
        assert {await Caller(running).version() for _ in range(5)} == {"1"}
        trial = running.server.repository.trial("colors", 2)
        assert trial.state == "NOT_SERVED"
        assert "sha256" in trial.reason
        assert (
            'taxon_traffic_trial{model="colors",role="canary",state="NOT_SERVED",version="2"} 1.0'
            in await asyncio.to_thread(running.page)
        )


@pytest.mark.parametrize(
    ("fronts", "method"), [("1", "Classify"), ("2", "Classify"), ("1", "ModelInfer"), ("1", "ModelStreamInfer")]
)
async def test_a_shadow_is_compared_and_answers_nobody(serve, root, fronts, method):
    shadow = Shadow(version=2, share=1.0)
    traffic.change(root, "colors", lambda before: before.changed(shadow=shadow))
    async with serve(root, "--metrics-port", "0", "--fronts", fronts) as running:
        caller = Caller(running)
        assert (await caller.trial()).role == pb.TRAFFIC_ROLE_SHADOW
        counted = {}
        while not (counted.get("same") and counted.get("nan")):
            assert {await caller.version_by(method, values) for values in (USUAL, POISON)} == {"1"}
            page = await asyncio.to_thread(running.page)
            found = re.findall(r'taxon_shadow_inputs_total{model="colors",outcome="(\w+)",version="2"} (\S+)', page)
            counted = {outcome: float(count) for outcome, count in found}
        assert set(counted) <= {"same", "nan", "shed"}
        assert 'taxon_shadow_score_distance_sum{model="colors",version="2"} 0.0' in page
        assert await caller.version_by(method, model_version="2") == "2"
