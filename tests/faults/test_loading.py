"""A heavy model is loaded, again and again, beside one that answers: its callers must not notice."""

import itertools
import sys
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from tests.faults.callers import Callers
from tests.faults.served import until
from tests.tensor_models import tensor, write_graph

pytestmark = pytest.mark.faults

WIDTH, DEPTH = 1024, 150
MARGIN_S = 0.03


def heavy(root):
    """A graph whose proof takes a second or two."""
    weights = np.random.default_rng(0).normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    names = ["x", *(f"h{index}" for index in range(DEPTH - 1)), "y"]
    write_graph(
        root / "heavy" / "1",
        [helper.make_node("MatMul", [a, "weights"], [b]) for a, b in itertools.pairwise(names)],
        [tensor("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [tensor("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(weights, "weights")],
    )


def test_a_load_beside_a_model_that_answers(serve, models):
    server = serve("--workers", "2", "--model-control", "explicit")
    until(lambda: len(server.workers()) == 2)
    stub = GRPCInferenceServiceStub(server.channel)
    heavy(models)
    with Callers(server.address, count=2, pause_s=0.02) as before:
        time.sleep(5)
    took = []
    with Callers(server.address, count=2, pause_s=0.02) as meanwhile:
        for _ in range(10):
            began = time.monotonic()
            stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="heavy"), timeout=60)
            took.append(time.monotonic() - began)
            stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="heavy"), timeout=60)
    sys.stdout.write(
        f"loads took {np.median(took):.2f} s; {meanwhile.answered} answered, {len(meanwhile.lost)} lost, "
        f"p99 {before.p99_s() * 1e3:.0f} ms before, {meanwhile.p99_s() * 1e3:.0f} ms meanwhile\n"
    )
    assert meanwhile.lost == []
    assert meanwhile.answered > 50
    assert meanwhile.p99_s() < 1.5 * before.p99_s() + MARGIN_S
