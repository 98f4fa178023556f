"""A real `taxon serve` as a user who may not read everything."""

import ctypes
import subprocess

import grpc

from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.commands import serving
from tests.fakes import picture, toy_bundle
from tests.tensor_models import simple

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


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
    flags = "--device", "cpu"
    with serving(models, *flags, preexec_fn=obey_permissions, stderr=subprocess.PIPE) as (server, address):
        with grpc.insecure_channel(address) as channel:
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
        server.terminate()
        _, log = server.communicate(timeout=30)
    assert "Traceback" not in log
