"""A real `taxon serve` as a user who may not read everything."""

import ctypes
import subprocess
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.fakes import picture, toy_bundle
from tests.tensor_models import simple

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
SERVING = health_pb2.HealthCheckResponse.SERVING


def obey_permissions():
    """Root may read everything; without these two it may not."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability)


def test_files_of_another_user_cost_only_their_own_models(models, tmp_path):
    """One `model.onnx` in a bundle, one without a manifest."""
    toy_bundle(models, "closed")
    simple(models)
    for name in ("closed", "simple"):
        (models / name / "1" / "model.onnx").chmod(0)
    words = ["--models", models, "--listen", "127.0.0.1:0", "--port-file", tmp_path / "port", "--device", "cpu"]
    server = subprocess.Popen(
        [sys.executable, "-m", "taxon.cli", "serve", *map(str, words)],
        preexec_fn=obey_permissions,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ends = time.monotonic() + 30
        while not (tmp_path / "port").exists() and time.monotonic() < ends:
            time.sleep(0.01)
        with grpc.insecure_channel(f"127.0.0.1:{(tmp_path / 'port').read_text().strip()}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(answer for answer in watch if answer.status == SERVING)
            index = GRPCInferenceServiceStub(channel).RepositoryIndex(oip.RepositoryIndexRequest(), timeout=10)
            states = {one.name: (one.state, one.reason) for one in index.models}
            request = pb.ClassifyRequest(image=picture(), model_name="colors")
            answer = ClassificationServiceStub(channel).Classify(request, timeout=10)
        assert answer.classifications[0].label == "red"
        assert states["colors"] == ("READY", "")
        for name in ("closed", "simple"):
            state, reason = states[name]
            assert state == "UNAVAILABLE"
            assert "ermission denied" in reason
    finally:
        server.terminate()
        _, log = server.communicate(timeout=30)
    assert server.returncode == 0
    assert "Traceback" not in log
