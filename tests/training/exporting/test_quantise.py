import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from taxon.training.exporting import graph, parity, quantise, variants
from taxon.training.exporting.graph import Served
from tests.training.toy_classifier import MEAN, STD, make_candidate


@pytest.fixture
def candidate(tmp_path):
    return make_candidate(tmp_path)


@pytest.fixture
def source(candidate, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    return path


def scores(path, candidate):
    return variants.rows_on(path, variants.decoded(candidate.files, candidate))


def initializer_types(path):
    return {entry.data_type for entry in onnx.load(path).graph.initializer}


def test_eight_bits_are_close(source, candidate, tmp_path):
    quantise.prepare(source, tmp_path / "prepared.onnx")
    pictures = np.stack(
        [picture for _, batch in parity.decoded_batches(candidate.files, candidate.pixels, (8,)) for picture in batch]
    )
    plan = quantise.PLANS[0]
    assert quantise.write_int8(tmp_path / "prepared.onnx", tmp_path / "int8.onnx", pictures, plan) == 2
    assert onnx.TensorProto.INT8 in initializer_types(tmp_path / "int8.onnx")
    weights = [numpy_helper.to_array(one) for one in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    largest = max(int(np.abs(one.astype(int)).max()) for one in weights if one.dtype == np.int8)
    assert 64 < largest <= 127  # what fits is test_requantise's
    difference = np.abs(scores(tmp_path / "int8.onnx", candidate) - scores(source, candidate)).max()
    assert 0 < difference < 0.1


def test_the_node_that_suffers_most_is_named_first(candidate, tmp_path):
    candidate.network.fc.weight.data[:, 0] *= 300
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    quantise.prepare(path, tmp_path / "prepared.onnx")
    pictures = np.stack(
        [picture for _, batch in parity.decoded_batches(candidate.files, candidate.pixels, (8,)) for picture in batch]
    )
    plan = quantise.PLANS[0]
    quantise.write_int8(tmp_path / "prepared.onnx", tmp_path / "int8.onnx", pictures, plan)
    names = quantise.most_sensitive(tmp_path / "prepared.onnx", tmp_path / "int8.onnx", pictures, plan)
    operators = {node.name: node.op_type for node in onnx.load(tmp_path / "prepared.onnx").graph.node}
    assert sorted(operators[name] for name in names) == ["Conv", "Gemm"]
    assert quantise.write_int8(tmp_path / "prepared.onnx", tmp_path / "int8.onnx", pictures, plan, names[:1]) == 1
