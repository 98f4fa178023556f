"""A text and an audio classifier from torch, without manifests, served and asked by our own stubs."""

import json

import numpy as np
import pytest

from taxon.inference import open_inference_service_pb2 as pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from tests.export_text_and_audio import AUDIO_LABELS, TEXT_LABELS, export
from tests.service.conftest import running

pytestmark = pytest.mark.slow
DTYPES = {"INT64": "<i8", "FP32": "<f4"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("exported") / "models"
    export(root)
    return root


@pytest.mark.parametrize(("model", "labels"), [("text", TEXT_LABELS), ("audio", AUDIO_LABELS)])
async def test_answers_as_torch_did(exported, model, labels):
    example = json.loads((exported / model / "example.json").read_text())
    async with running(exported) as server:
        stub = GRPCInferenceServiceStub(server.channel)
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=model))
        request = pb.ModelInferRequest(model_name=model)
        for one in metadata.inputs:
            array = np.array(example[one.name], DTYPES[one.datatype])
            request.inputs.add(name=one.name, datatype=one.datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        answer = await stub.ModelInfer(request)
        (output,) = metadata.outputs
        request.outputs.add(name=output.name).parameters["classification"].int64_param = 1
        best = await stub.ModelInfer(request)
    given = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
    expected = np.array(example[output.name])
    np.testing.assert_allclose(given, expected, atol=1e-4)
    assert list(best.outputs[0].shape) == [2, 1]
    for row in expected:
        assert f":{row.argmax()}:{labels[row.argmax()]}".encode() in best.raw_output_contents[0]
