import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from taxon.training.exporting import divergence, graph
from taxon.training.exporting.graph import LADDER, Served
from tests.training.toy_classifier import MEAN, STD, ToyNetwork

SHAPE = (10, 10, 3)


@pytest.fixture
def served():
    return Served(ToyNetwork(), MEAN, STD, "single_label")


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)


@pytest.fixture
def path(served, tmp_path):
    graph.write_graph(served, SHAPE, tmp_path / "model.onnx", LADDER[1])
    return tmp_path / "model.onnx"


def test_a_faithful_graph_parts_nowhere(served, path, pictures):
    nodes = divergence.differences(served, path, pictures)
    assert {node.operator for node in nodes} >= {"aten.conv2d.default", "aten.relu.default", "aten.linear.default"}
    assert divergence.first_parting(nodes) is None


@pytest.mark.parametrize("operator", ["conv2d", "linear"])
def test_the_first_wrong_node_is_named(served, path, pictures, operator):
    model = onnx.load(path)
    kind = {"conv2d": ("Conv",), "linear": ("Gemm", "MatMul")}[operator]
    node = next(node for node in model.graph.node if node.op_type in kind)
    names = {entry.name: entry for entry in model.graph.initializer}
    weight = names[node.input[1]]
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)
    parting = divergence.first_parting(divergence.differences(served, path, pictures))
    assert parting.operator == f"aten.{operator}.default"
