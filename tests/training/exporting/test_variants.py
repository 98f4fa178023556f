import dataclasses

import numpy as np
import onnx
import pytest
import torchvision
from onnx import numpy_helper

from taxon.bundle import store
from taxon.service.runtime import session
from taxon.training.exporting import bundling, goldens, graph, half, parity, quantise, variants
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.graph import GraphError, Served
from taxon.training.exporting.variants import Dropped, Kept
from tests.training.toy_classifier import MEAN, STD, make_candidate, write_pictures


@pytest.fixture
def candidate(tmp_path):
    return dataclasses.replace(make_candidate(tmp_path), training_files=write_pictures(tmp_path / "train", 20))


@pytest.fixture
def source(candidate, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    graph.tidy(path, {"taxon.task": "single_label"})
    return path


def scores(path, candidate):
    return parity.graph_rows(parity.open_session(path), candidate.files, candidate.pixels)[: len(candidate.files)]


def initializer_types(path):
    return {entry.data_type for entry in onnx.load(path).graph.initializer}


def test_half_precision_keeps_normalisation_and_scores_in_full(source, candidate, tmp_path):
    half.write_half(source, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"taxon.task": "single_label"}
    assert onnx.TensorProto.FLOAT16 in initializer_types(tmp_path / "half.onnx")
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    values = {entry.name: entry.data_type for entry in model.graph.initializer}
    normalising = next(node for node in model.graph.node if node.op_type == "Mul")
    assert [values[name] for name in normalising.input if name in values] == [onnx.TensorProto.FLOAT]
    np.testing.assert_allclose(scores(tmp_path / "half.onnx", candidate), scores(source, candidate), atol=5e-3)


@pytest.mark.slow
def test_a_transformer_in_half_precision_opens_on_the_cpu(tmp_path):
    """ONNX Runtime's layout for the CPU ends the whole process on such a graph."""
    network = torchvision.models.get_model("vit_b_16", weights=None, num_classes=3, image_size=32)
    graph.write_graph(Served(network, MEAN, STD, "single_label"), (32, 32, 3), tmp_path / "model.onnx")
    half.write_half(tmp_path / "model.onnx", tmp_path / "model.fp16.onnx")
    batch = np.zeros((2, 32, 32, 3), np.uint8)
    at_export = parity.run(parity.open_session(tmp_path / "model.fp16.onnx"), batch)
    served = session.open_session(tmp_path / "model.fp16.onnx", session.CPU, 1, {}).run(batch)
    np.testing.assert_allclose(served, at_export, atol=1e-3)


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
    assert 60 <= largest <= 64  # two products with 255 fit into 16 bits: AVX2 must not cut them off
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


def test_what_loses_too_much_is_dropped_with_the_reason(source, candidate, monkeypatch):
    monkeypatch.setattr(variants, "_accuracy", lambda *_: 0.5)
    result = variants.half_precision(source, candidate, 0.9)
    assert isinstance(result, Dropped)
    assert "50.00% instead of 90.00%" in result.reason
    assert not source.with_name("model.fp16.onnx").exists()


def slower(factor):
    return lambda paths, *_: [{1: 1.0, 8: 8.0}, {1: factor, 8: 8.0 * factor}][: len(paths)]


@pytest.mark.parametrize("factor", [2.0, 0.98])
def test_an_int8_graph_that_is_not_clearly_faster_is_never_kept(source, candidate, monkeypatch, factor):
    monkeypatch.setattr(variants, "latencies", slower(factor))
    result = variants.eight_bits(source, candidate, 0.875)
    assert isinstance(result, Dropped)
    assert "no plan is 1.05 times as fast" in result.reason
    assert sorted(path.name for path in source.parent.glob("*.onnx")) == ["model.onnx"]


def test_an_int8_graph_that_is_faster_and_good_is_kept(source, candidate, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    result = variants.eight_bits(source, candidate, 0.875)
    assert isinstance(result, Kept)
    assert result.variant.latency_ms == {1: 0.5, 8: 4.0}
    assert "2.00 times as fast" in result.note


def test_sensitive_nodes_go_back_to_float_until_the_loss_is_allowed(source, candidate, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    measured = iter([0.5, 0.875])
    monkeypatch.setattr(variants, "_accuracy", lambda *_: next(measured))
    result = variants.eight_bits(source, candidate, 0.875)
    assert isinstance(result, Kept)
    assert "1 nodes in 8 bits, 1 of the most sensitive left in float" in result.note


def test_a_gain_that_is_gone_when_timed_again_is_not_kept(source, candidate, monkeypatch):
    factors = iter([0.5, 0.5, 0.98])  # two plans, then the graph that would be published
    monkeypatch.setattr(variants, "latencies", lambda *given: slower(next(factors))(*given))
    result = variants.eight_bits(source, candidate, 0.875)
    assert isinstance(result, Dropped)
    assert "0 nodes in float, it is not 1.05 times as fast" in result.reason
    assert not source.with_name("model.int8.onnx").exists()


def test_no_number_of_nodes_in_float_is_tried_twice(source, candidate, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    monkeypatch.setattr(variants, "_accuracy", lambda *_: 0.5)
    result = variants.eight_bits(source, candidate, 0.875)
    assert isinstance(result, Dropped)
    assert result.reason.count("with 0 nodes") == result.reason.count("with 1 nodes") == 1


def test_without_training_pictures_there_is_no_int8(source, candidate):
    result = variants.eight_bits(source, dataclasses.replace(candidate, training_files=()), 0.875)
    assert isinstance(result, Dropped)


def test_the_converters_failure_is_a_reason_not_a_crash(source, candidate, monkeypatch):
    def broken(*_):
        raise GraphError("no such operator")

    monkeypatch.setattr(half, "write_half", broken)
    assert variants.half_precision(source, candidate, 0.9) == Dropped("fp16", "no such operator")


def test_latencies_are_measured_for_every_batch_size(source, candidate):
    pictures = np.zeros((3, *candidate.pixels.shape), np.uint8)
    first, second = variants.latencies([source, source], pictures, "CPUExecutionProvider")
    assert set(first) == set(second) == {1, 8}
    assert all(value > 0 for value in first.values())


def test_a_bundle_with_variants_replays_each_with_its_own_tolerance(candidate, tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    settings = Settings(precisions=("fp16", "int8"))
    export = bundling.publish(candidate, tmp_path / "models", "toy", settings)
    manifest = store.read(tmp_path / "models", "toy", 1).manifest
    assert [variant.precision for variant in manifest.variants] == ["fp32", "fp16", "int8"]
    assert manifest.variants[0].golden_tolerance is None
    assert all(variant.golden_tolerance >= 0.02 for variant in manifest.variants[1:])
    assert len(export.notes) == 2
    goldens.replay(tmp_path / "models" / "toy" / "1", manifest)


def test_goldens_leave_out_what_rounding_could_turn(candidate):
    reference = np.array([[0.51, 0.49], [0.6, 0.4]] * 12, dtype=np.float32)
    other = reference.copy()
    other[1] = [0.4, 0.6]
    chosen = goldens.choose([("a",)] * 24, reference, [other])
    assert set(chosen) <= set(range(3, 24, 2))
    assert set(chosen.values()) == {goldens.GOLDEN_TOLERANCE}


def test_an_almost_untrained_network_gets_tighter_goldens():
    reference = np.array([[0.503, 0.497]] * 20, dtype=np.float32)
    chosen = goldens.choose([("a",)] * 20, reference)
    assert len(chosen) == 8
    assert list(chosen.values()) == pytest.approx([0.002] * 8, rel=1e-3)


def test_a_network_that_is_undecided_everywhere_cannot_be_proven():
    with pytest.raises(bundling.ExportError, match="undecided"):
        goldens.choose([("a",)] * 20, np.full((20, 2), 0.5, dtype=np.float32))
