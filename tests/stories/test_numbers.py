"""A table of numbers from its file to an answer: train, export, serve, ask."""

import grpc
import numpy as np
import pytest
import torch

from taxon.client import Client
from taxon.inference import open_inference_service_pb2 as inference_pb
from taxon.inference import open_inference_service_pb2_grpc as inference_grpc
from taxon.training.commands import export, train
from taxon.training.runs.folder import Run
from tests.commands import serving, taxon
from tests.training.exporting.test_examples import COLUMNS, write_table


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    table = write_table(folder / "houses.csv")
    words = ["--model", "mlp", "--epochs", "8", "--lr", "0.01", "--threads", "1", "--no-report"]
    assert train.main(["--data", str(table), *words, "--out", str(folder / "run")]) == 0
    assert export.main([str(folder / "run"), "--models", str(folder / "models"), "--name", "houses"]) == 0
    return folder


@pytest.fixture
def server(product):
    with serving(product / "models", "--device", "cpu") as (_, address):
        yield address


def test_a_row_is_answered_as_torch_answers_it(product, server, tmp_path):
    checkpoint = Run.open(product / "run").checkpoint()
    raw = np.array([[3.9, 2020.0], [-0.5, 2015.0], [1.9, 2024.0]])
    standardised = torch.tensor((raw - np.array(checkpoint.mean)) / np.array(checkpoint.std), dtype=torch.float32)
    with torch.inference_mode():
        logits = checkpoint.build_model()(standardised)
    with Client(server) as client:
        model = client.get_model()
        answers = [client.classify(features=row.tolist(), max_results=2) for row in raw]
    assert list(model.input.features.feature_names) == list(COLUMNS)
    by_label = [{found.label: found.score for found in answer.classifications} for answer in answers]
    served = np.array([[scores[label] for label in checkpoint.labels] for scores in by_label])
    # The graph's temperature is not the checkpoint's business: one factor between all differences of logits.
    apart, expected = np.log(served[:, 0] / served[:, 1]), (logits[:, 0] - logits[:, 1]).numpy()
    temperature = expected[0] / apart[0]
    np.testing.assert_allclose(apart * temperature, expected, rtol=1e-3)

    request = inference_pb.ModelInferRequest(model_name="houses")
    request.inputs.add(name="features", datatype="FP32", shape=[3, 2]).contents.fp32_contents.extend(raw.ravel())
    with grpc.insecure_channel(server) as channel:
        reply = inference_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    tensor = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(3, 2)
    np.testing.assert_allclose(tensor, served, atol=1e-6)

    # By the command, with columns in another order and the true label behind them.
    (tmp_path / "rows.csv").write_text("year,size,answer\n2020,3.9,large\n2015,-0.5,small\nnan,1,small\n")
    printed = taxon("classify", tmp_path / "rows.csv", "--server", server, "--labelled", code=1).stdout
    assert "accuracy 66.67% (2 of 3, 1 without an answer)" in printed
    assert "FIELD_INVALID" in printed
