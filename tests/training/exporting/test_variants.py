import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torchvision

from taxon.bundle import store
from taxon.service.runtime import session
from taxon.training.exporting import bundling, goldens, graph, half, parity, variants
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.graph import GraphError, Served
from taxon.training.exporting.variants import Dropped, Kept
from tests.training.toy_classifier import MEAN, STD, make_candidate, with_training

ESTIMATE = Budget(judged_by="estimate")


@pytest.fixture
def candidate(tmp_path):
    return with_training(make_candidate(tmp_path), tmp_path)


@pytest.fixture
def source(candidate, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    graph.tidy(path, {"taxon.task": "single_label"})
    return path


def scores(path, candidate):
    return variants.rows_on(path, variants.decoded(candidate.files, candidate))


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
    served = session.open_session(tmp_path / "model.fp16.onnx", session.CPU, 1, {}, precision="fp16").run(batch)
    np.testing.assert_allclose(served, at_export, atol=1e-3)


class Overflowing:
    """As CUDA computes in fp16, and a CPU does not."""

    def get_inputs(self):
        return [SimpleNamespace(name="image")]

    def get_outputs(self):
        return [SimpleNamespace(name="scores")]

    def run(self, _, feeds):
        return [np.full((len(feeds["image"]), 3), np.nan, np.float32)]


def test_half_precision_is_judged_where_it_will_run(source, candidate, monkeypatch):
    reference, on_cpu = scores(source, candidate), parity.open_session
    kept = variants.half_precision(source, candidate, reference, ESTIMATE)
    assert "judged on a CPU, which computes in fp32" in kept.note
    monkeypatch.setattr(parity, "providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(
        parity, "open_session", lambda path, provider: Overflowing() if "CUDA" in provider else on_cpu(path, provider)
    )
    result = variants.half_precision(source, candidate, reference, ESTIMATE)
    assert result == Dropped("fp16", "its scores are not finite")


def test_what_loses_too_much_is_dropped_with_the_reason(source, candidate):
    reference = np.eye(3, dtype=np.float32)[[candidate.labels.index(answer) for (answer,) in candidate.answers]]
    result = variants.half_precision(source, candidate, reference, ESTIMATE)
    assert isinstance(result, Dropped)
    assert result.reason.startswith("it loses 12.50% of 24 pictures (3 lost, 0 gained)")
    assert not source.with_name("model.fp16.onnx").exists()


def test_few_pictures_show_no_budget_to_be_kept_but_may_be_enough_for_its_maker(source, candidate):
    reference = scores(source, candidate)
    result = variants.half_precision(source, candidate, reference)
    assert isinstance(result, Dropped)
    assert (
        "24 validation pictures do not show it: about 299 such pictures would, or --judge-by estimate" in result.reason
    )
    assert not source.with_name("model.fp16.onnx").exists()
    result = variants.half_precision(source, candidate, reference, ESTIMATE)
    assert isinstance(result, Kept)
    assert result.variant.evidence.judged_by == "estimate"
    assert "at most 11.73%" in result.note
    assert "published for that alone" in result.note
    result = variants.half_precision(source, candidate, reference, Budget(0.12))
    assert isinstance(result, Kept)
    assert (result.variant.evidence.judged_by, result.variant.evidence.budget) == ("bound", 0.12)


def test_the_converters_failure_is_a_reason_not_a_crash(source, candidate, monkeypatch):
    def broken(*_):
        raise GraphError("no such operator")

    monkeypatch.setattr(half, "write_half", broken)
    assert variants.half_precision(source, candidate, scores(source, candidate)) == Dropped("fp16", "no such operator")


def test_latencies_are_measured_for_every_batch_size(source, candidate):
    pictures = np.zeros((3, *candidate.pixels.shape), np.uint8)
    first, second = variants.latencies([source, source], pictures, "CPUExecutionProvider")
    assert set(first) == set(second) == {1, 8}
    assert all(value > 0 for value in first.values())


def test_a_bundle_with_variants_replays_each_with_its_own_tolerance(candidate, tmp_path, monkeypatch):
    faster = [{1: 1.0, 8: 8.0}, {1: 0.5, 8: 4.0}]
    monkeypatch.setattr(variants, "latencies", lambda paths, *_: faster[: len(paths)])
    settings = Settings(precisions=("fp16", "int8"), budget=ESTIMATE)
    export = bundling.publish(candidate, tmp_path / "models", "toy", settings)
    manifest = store.read(tmp_path / "models", "toy", 1).manifest
    assert [variant.precision for variant in manifest.variants] == ["fp32", "fp16", "int8"]
    assert manifest.variants[0].golden_tolerance is None
    assert all(variant.golden_tolerance >= 0.02 for variant in manifest.variants[1:])
    assert len(export.notes) == 2
    assert manifest.variants[0].evidence is None
    report = json.loads((tmp_path / "models" / "toy" / "1" / "report" / "metrics.json").read_text())
    for variant in manifest.variants[1:]:
        assert variant.evidence.picture_count == 24
        assert report["variants"][variant.precision]["evidence"] == variant.evidence.model_dump()
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
