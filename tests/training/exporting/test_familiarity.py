"""What the judge is fitted to, where there can be none, and how it goes through export."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from taxon.bundle.manifest import Variant
from taxon.bundle.picture_limits import Limits
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.device import CPU, Device
from taxon.training.exporting import bundling, calibrate, familiarity, fusion, gate, goldens, graph, parity, variants
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.familiarity import centres
from taxon.training.exporting.graph import LADDER, Served
from taxon.training.exporting.judge import Judged
from taxon.training.exporting.variants import Kept
from tests.training.toy_classifier import (
    MEAN,
    PIXELS,
    STD,
    AskedTwice,
    ToyNetwork,
    corrupting,
    make_candidate,
    with_training,
)

ROUNDING = {"fp32": 0.0, "fp16": 2e-3, "int8": 0.05}
COVERAGE = Settings(unknown_coverage=0.75)


@pytest.fixture
def candidate(tmp_path):
    return dataclasses.replace(with_training(make_candidate(tmp_path), tmp_path, 40, seed=1), head="fc")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# The bank


def test_few_features_are_the_bank_themselves():
    features = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.testing.assert_allclose(centres(features, 2), unit(features), rtol=1e-6)


def test_many_features_become_centres_near_to_each(monkeypatch):
    """Twelve narrow bundles of directions, and room for twelve."""
    monkeypatch.setattr(familiarity, "CENTRES", 12)
    random = np.random.default_rng(0)
    directions = unit(random.normal(size=(12, 16)))
    lengths = random.uniform(1, 100, (600, 1))  # which say nothing
    features = lengths * (directions[np.arange(600) % 12] + 0.02 * random.normal(size=(600, 16)))
    bank = centres(features.astype(np.float32), 2)
    assert (bank.shape, bank.dtype) == ((12, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-6)
    assert (directions @ bank.T).max(axis=1).min() > 0.99
    np.testing.assert_array_equal(bank, centres(features.astype(np.float32), 2))  # the same again


class FirstOnes:
    """Stands for k-means, which takes its time."""

    def __init__(self, count, **_):
        self.count = count

    def fit(self, features):
        self.cluster_centers_ = features[: self.count]
        return self


@pytest.mark.parametrize(
    ("width", "label_count", "count"),
    [(64, 2, 128), (1280, 2, 128), (1280, 100, 200), (1280, 1000, 390), (4096, 100, 122), (25088, 2, 19)],
)
def test_the_bank_keeps_to_its_budget(width, label_count, count, monkeypatch):
    monkeypatch.setattr(familiarity, "KMeans", FirstOnes)
    bank = centres(np.random.default_rng(0).random((600, width), dtype=np.float32), label_count)
    assert len(bank) == count
    assert bank.nbytes <= 2e6


def test_pictures_of_training_are_wholly_familiar_and_others_less(candidate):
    fitted, note = familiarity.judged(candidate)
    assert "40 kinds of training picture" in note
    rows = parity.reference_logits(fitted.network, candidate.training_files, PIXELS, MEAN, STD)
    np.testing.assert_allclose(rows[:40, 3], 1.0, atol=1e-5)
    others = parity.reference_logits(fitted.network, candidate.files, PIXELS, MEAN, STD)[:, 3]
    assert 0.5 < others.min() < others.max() < 0.99999


# Where there is none


class Diverged(ToyNetwork):
    def __init__(self):
        super().__init__()
        self.norm.bias.data.fill_(torch.inf)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training_files": ()}, "there are no training pictures to compare with"),
        ({"head": None}, "the features of an imported graph or of an ensemble are in no one place"),
        ({"pixels": None}, "the classifier takes numbers"),
        ({"network": Diverged()}, "its features of training pictures are not finite"),
        ({"network": AskedTwice()}, "its last layer fc does not take one vector for each picture"),
    ],
)
def test_without_features_the_best_score_decides_and_the_export_says_why(candidate, changes, reason):
    same, note = familiarity.judged(dataclasses.replace(candidate, **changes))
    assert not isinstance(same.network, Judged)
    assert note == f'"unknown" is told by the best score, because {reason}'


def test_several_labels_have_no_unknown_and_the_export_says_so(candidate, tmp_path):
    several = dataclasses.replace(candidate, task="multi_label", expected_accuracy=None)
    export = bundling.publish(several, tmp_path / "models", "toy", COVERAGE)
    (note,) = export.notes
    assert note.startswith('there is no "unknown": ')
    assert export.bundle.manifest.thresholds.unknown is None


def test_an_ensemble_has_no_features_in_one_place(candidate):
    parts = [fusion.Ingredient(None, candidate, 0.9), fusion.Ingredient(None, candidate, 0.8)]
    assert fusion.ensemble(parts).head is None


# Through export


@pytest.mark.slow
@pytest.mark.parametrize("strategy", LADDER, ids=lambda strategy: strategy.name)
def test_every_strategy_gives_a_second_output(candidate, tmp_path, strategy):
    fitted, _ = familiarity.judged(candidate)
    graph.write_graph(Served(fitted.network, MEAN, STD, "single_label"), PIXELS.shape, tmp_path / "m.onnx", strategy)
    session = parity.open_session(tmp_path / "m.onnx")
    assert [output.name for output in session.get_outputs()] == ["scores", "familiarity"]
    logits = parity.reference_logits(fitted.network, candidate.files, PIXELS, MEAN, STD)
    rows = parity.graph_rows(session, candidate.files, PIXELS, (7,))[: len(candidate.files)]
    np.testing.assert_allclose(rows, parity.rows_of(logits, 3, "single_label"), atol=1e-5)


def test_an_exported_judge_is_measured_proven_and_recorded(candidate, tmp_path):
    export = bundling.publish(candidate, tmp_path / "models", "toy", COVERAGE)
    manifest = export.bundle.manifest
    assert manifest.judges_familiarity
    assert manifest.calibration.unknown_coverage == 0.75
    fitted, note = familiarity.judged(candidate)
    assert export.notes == (note,)
    judged = parity.reference_logits(fitted.network, candidate.files, PIXELS, MEAN, STD)[:, 3]
    assert (judged >= manifest.thresholds.unknown).mean() == 0.75
    assert {golden.familiarity for golden in manifest.golden} <= set(judged.tolist())
    goldens.replay(export.bundle.folder, manifest)
    proven = prove(export.bundle, "fp32", Device(CPU), 1, [1, 2], Limits())
    assert proven.largest_difference < 1e-5


def test_the_threshold_is_there_without_a_temperature_too(candidate, tmp_path):
    settings = dataclasses.replace(COVERAGE, calibration=False)
    manifest = bundling.publish(candidate, tmp_path / "models", "toy", settings).bundle.manifest
    assert manifest.judges_familiarity
    assert (manifest.calibration.temperature, manifest.calibration.unknown_coverage) == (1.0, 0.75)


def test_without_a_coverage_the_graph_is_as_ever(candidate, tmp_path):
    export = bundling.publish(candidate, tmp_path / "models", "toy")
    assert [output.name for output in onnx.load(export.bundle.folder / "model.onnx").graph.output] == ["scores"]
    assert not export.bundle.manifest.judges_familiarity


def shift_bank(path):
    """Turns every direction of the bank a little."""
    model = onnx.load(path)
    (bank,) = (entry for entry in model.graph.initializer if 40 in entry.dims)
    values = numpy_helper.to_array(bank)
    bank.CopyFrom(numpy_helper.from_array(values + np.float32(0.05), bank.name))
    onnx.save(model, path)


def test_a_bank_that_is_not_the_fitted_one_is_never_published(candidate, tmp_path):
    with pytest.raises(ExportError, match=r"nothing was published.* the familiarity differs by "):
        bundling.publish(
            candidate, tmp_path / "models", "toy", COVERAGE, ladder=LADDER[:1], write_graph=corrupting(shift_bank)
        )


def test_a_bank_that_changes_after_publication_is_refused(candidate, tmp_path):
    bundle = bundling.publish(candidate, tmp_path / "models", "toy", COVERAGE).bundle
    shift_bank(bundle.folder / "model.onnx")
    with pytest.raises(ExportError, match="the familiarity differs by"):
        goldens.replay(bundle.folder, bundle.manifest)


@pytest.mark.slow
def test_lighter_graphs_judge_in_full_precision_with_thresholds_of_their_own(candidate, tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "latencies", lambda paths, *_: [{1: 1.0, 8: 8.0}, {1: 0.5, 8: 4.0}][: len(paths)])
    settings = dataclasses.replace(COVERAGE, precisions=("fp16", "int8"), budget=Budget(judged_by="estimate"))
    bundle = bundling.publish(candidate, tmp_path / "models", "toy", settings).bundle
    manifest = bundle.manifest
    assert [variant.precision for variant in manifest.variants] == ["fp32", "fp16", "int8"]
    full = parity.graph_rows(parity.open_session(bundle.folder / "model.onnx"), candidate.files, PIXELS)[:24]
    for variant in manifest.variants:
        model = onnx.load(bundle.folder / variant.file)
        judges = set(graph.judging(model))
        assert judges
        used = {name for node in model.graph.node if node.name in judges for name in node.input}
        kinds = {entry.data_type for entry in model.graph.initializer if entry.name in used and 40 in entry.dims}
        assert kinds == {onnx.TensorProto.FLOAT}
        rows = parity.graph_rows(parity.open_session(bundle.folder / variant.file), candidate.files, PIXELS)[:24]
        np.testing.assert_allclose(rows[:, 3], full[:, 3], atol=ROUNDING[variant.precision])
        threshold = manifest.unknown_threshold(variant.precision)
        assert (rows[:, 3] >= threshold).mean() == 0.75
        prove(bundle, variant.precision, Device(CPU), 1, [1, 2], Limits())
    assert len({manifest.unknown_threshold(variant.precision) for variant in manifest.variants}) == 3


def lighter(rows):
    """A graph with these rows that is to be published."""
    return Kept(Variant(file="model.int8.onnx", precision="int8"), rows, "")


def test_a_lighter_graph_without_a_judge_has_a_threshold_on_its_own_best_scores():
    reference = np.linspace([0.9, 0.06, 0.04], [0.5, 0.3, 0.2], 24, dtype=np.float32)
    less_sure = reference - np.array([0.1, -0.05, -0.05], np.float32)
    kept = variants.as_served(lighter(less_sure), reference, [0, 23], 3, 0.75)
    assert (less_sure.max(axis=1) >= kept.variant.unknown).mean() == 0.75
    assert (less_sure.max(axis=1) >= calibrate.unknown_threshold(reference.max(axis=1), 0.75)).mean() == 0.5
    assert variants.as_served(lighter(less_sure), reference, [0, 23], 3, None).variant.unknown is None


def test_every_published_variant_of_one_label_has_its_threshold_and_none_of_several_has(candidate, tmp_path):
    settings = dataclasses.replace(COVERAGE, precisions=("fp16",), budget=Budget(judged_by="estimate"))
    without_judge = dataclasses.replace(candidate, head=None)
    manifest = bundling.publish(without_judge, tmp_path / "models", "one", settings).bundle.manifest
    assert manifest.thresholds.unknown_by == "score"
    assert abs(manifest.variants[1].unknown - manifest.thresholds.unknown) < 5e-3
    several = dataclasses.replace(candidate, task="multi_label", expected_accuracy=None)
    manifest = bundling.publish(several, tmp_path / "models", "several", settings).bundle.manifest
    assert manifest.variants[1].unknown is None


def test_tf32_rounds_the_judge_too(candidate):
    from taxon.training.exporting import tf32

    fitted, _ = familiarity.judged(candidate)
    logits = parity.reference_logits(fitted.network, candidate.files, PIXELS, MEAN, STD)
    moved = np.abs(tf32.rows(fitted, candidate.files, "single_label", 1.0) - parity.rows_of(logits, 3, "single_label"))[
        :, 3
    ]
    assert 1e-7 < moved.max() < 5e-3


def test_the_gate_compares_familiarity(candidate, tmp_path):
    fitted, _ = familiarity.judged(candidate)
    logits = parity.reference_logits(fitted.network, candidate.files, PIXELS, MEAN, STD)
    reference = parity.rows_of(logits, 3, "single_label")
    path = tmp_path / "m.onnx"
    graph.write_graph(Served(fitted.network, MEAN, STD, "single_label"), PIXELS.shape, path)
    graph.tidy(path, {"taxon.labels": '["blue", "green", "red"]'})
    (right,) = gate.check(path, fitted, reference)
    assert not right.faults
    reference[3, 3] -= 0.01
    (wrong,) = gate.check(path, fitted, reference)
    assert "the familiarity differs by 1.0e-02 on val/003.png" in wrong.faults[0]
