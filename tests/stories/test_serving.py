"""A real `taxon serve`, from its first word to its last."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.commands import serving, taxon
from tests.fakes import COLORS, picture


@pytest.fixture
def started(models):
    with serving(models, "--drain-delay-seconds", 0.3, stderr=subprocess.PIPE) as running:
        yield running


def test_serve_ask_drain(started):
    process, address = started
    taxon("health", "--server", address, "--wait-s", 30)
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(8) as callers:
        stub = ClassificationServiceStub(channel)
        reply = stub.Classify(pb.ClassifyRequest(image=picture(COLORS["green"])), timeout=10)
        assert reply.classifications[0].label == "green"
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING

        # Pictures that take a while, so that some are in flight when the server is told to leave.
        slow = pb.ClassifyRequest(image=picture(COLORS["blue"], size=(3000, 3000)))
        in_flight = [callers.submit(stub.Classify, slow, timeout=30) for _ in range(8)]
        os.kill(process.pid, signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        # NOT_SERVING is for balancers: until they have noticed, calls are still answered.
        assert stub.Classify(pb.ClassifyRequest(image=picture()), timeout=10).classifications[0].label == "red"
        assert {call.result().classifications[0].label for call in in_flight} == {"blue"}
        assert process.wait(30) == 0
        with pytest.raises(grpc.RpcError) as failure:
            stub.Classify(slow, timeout=5)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert '"stopped"' in process.stderr.read()


@pytest.mark.parametrize("device", ["cuda"])
def test_cuda_without_cuda_does_not_start(models, device):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this wheel has CUDA")
    done = taxon("serve", "--models", models, "--listen", "127.0.0.1:0", "--device", device, code=1)
    assert "--device cuda: this onnxruntime has no CUDA support" in done.stderr
