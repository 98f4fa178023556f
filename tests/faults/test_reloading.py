"""New versions come and old ones go under load: no call is lost, every answer is of one version wholly, and memory
stays what it was.

`TAXON_FAULT_VERSIONS=200 make test-faults` has so many; by default there are a few.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter

import grpc
import numpy as np
import pytest

from taxon.client import Client
from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.machine import private_bytes
from tests.fakes import COLORS, toy_bundle, toy_scores
from tests.faults.callers import Callers
from tests.faults.served import until
from tests.inference_requests import pair
from tests.tensor_models import simple

pytestmark = pytest.mark.faults

PLAIN = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
VERSIONS = int(os.environ.get("TAXON_FAULT_VERSIONS", "12"))
MIB = 2**20


def steepness(number):
    """Another one than its neighbours'."""
    return 10.0 if number == 1 else 1 + number % 40 / 10


def publish(root, number):
    """A version whose labels and whose scores say which it is."""
    labels = tuple(f"{color} of {number}" for color in COLORS)
    made = toy_bundle(root, labels=labels, steepness=steepness(number))
    assert made.manifest.version == number


def is_of_one_version(answer):
    """The number comes from where the call was routed, the label from a manifest, the score from the graph that ran."""
    number, first = int(answer.model_version), answer.classifications[0]
    score = toy_scores(np.array([steepness(number), 0, 0]))[0]
    return first.label == ("red" if number == 1 else f"red of {number}") and abs(first.score - score) < 1e-3


def test_versions_come_and_go(serve, models):
    server = serve("--workers", "2", "--watch-seconds", "0.1")
    used, took = [], []
    with Callers(server.address, is_right=is_of_one_version) as callers, Client(server.address) as client:

        def served():
            return {int(model.version): model.default_version for model in client.list_models()}

        for new in range(2, VERSIONS + 2):
            began = time.monotonic()
            publish(models, new)
            until(lambda new=new: served().get(new))
            took.append(time.monotonic() - began)
            shutil.rmtree(models / "colors" / str(new - 1))
            until(lambda new=new: list(served()) == [new])
            used.append(private_bytes([server.process.pid, *server.workers()]))
    sys.stdout.write(
        f"{VERSIONS} versions, {max(took):.2f} s until served; {callers.answered} answered, {len(callers.lost)} lost, "
        f"longest {max(callers.seconds) * 1e3:.0f} ms, memory {used[2] / MIB:.0f} to {used[-1] / MIB:.0f} MiB\n"
    )
    assert callers.lost == []
    assert callers.answered > 20 * VERSIONS
    assert used[-1] - used[2] < 32 * MIB


@pytest.mark.parametrize("fronts", [1, 4])
def test_a_graph_is_read_again_and_again_under_load(serve, models, fronts):
    """Also beside calls of many inputs, and of fronts that have not heard of it yet."""
    simple(models)
    server = serve("--workers", "2", "--fronts", str(fronts), "--model-control", "explicit")
    over, answered, lost = threading.Event(), Counter(), []

    def call(row_count):
        rows = np.zeros((row_count, 16))
        with grpc.insecure_channel(server.address, PLAIN) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not over.is_set():
                try:
                    stub.ModelInfer(pair(rows, rows), timeout=20)
                    answered[row_count] += 1
                except grpc.RpcError as error:
                    lost.append(f"{row_count}: {error.code().name}: {error.details()}")

    callers = [threading.Thread(target=call, args=(row_count,)) for row_count in (1, 1, 1, 1, 120, 120)]
    for caller in callers:
        caller.start()
    for _ in range(30):
        request = oip.RepositoryModelLoadRequest(model_name="simple")
        GRPCInferenceServiceStub(server.channel).RepositoryModelLoad(request, timeout=60)
    over.set()
    for caller in callers:
        caller.join()
    assert lost == []
    assert answered[1] > 100
    assert answered[120] > 20


@pytest.mark.parametrize("stopped_s", [0.5, 5.0])
def test_a_load_is_answered_when_every_front_knows_unless_one_hangs(serve, models, stopped_s):
    toy_bundle(models, "other")
    server = serve("--workers", "2", "--fronts", "2", "--model-control", "explicit")
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(server.address, PLAIN)) for _ in range(16)]
        for channel in channels:
            grpc.channel_ready_future(channel).result(20)
        stubs = [GRPCInferenceServiceStub(channel) for channel in channels]
        stubs[0].RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="other"), timeout=20)
        ready = oip.ModelReadyRequest(name="other")
        assert not any(stub.ModelReady(ready, timeout=20).ready for stub in stubs)
        stopped = server.fronts()[0]
        os.kill(stopped, signal.SIGSTOP)
        calls = [stub.ModelReady.future(ready, timeout=20) for stub in stubs]
        time.sleep(0.2)
        free = [stub for stub, call in zip(stubs, calls, strict=True) if call.done()]
        assert 0 < len(free) < len(stubs)
        began = time.monotonic()
        resumed = threading.Timer(stopped_s, os.kill, (stopped, signal.SIGCONT))
        resumed.start()
        free[0].RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="other"), timeout=20)
        took = time.monotonic() - began
        if stopped_s < 1:
            assert stopped_s <= took
            assert all(stub.ModelReady(ready, timeout=20).ready for stub in stubs)
        else:
            assert took < stopped_s - 1
            assert all(stub.ModelReady(ready, timeout=20).ready for stub in free)
        resumed.join()
