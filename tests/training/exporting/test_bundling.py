import dataclasses
import errno
import json
import os
import pathlib
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from taxon.bundle import store
from taxon.training.exporting import bundling, gate, goldens, graph, parity, quantise
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.graph import LADDER, Served, write_graph
from taxon.training.exporting.parity import ParityError
from tests.training.toy_classifier import LABELS, MEAN, STD, ToyNetwork, corrupting, make_candidate

ONLY_FIRST = LADDER[:1]


def published(root):
    return store.versions(root, "toy")


def test_a_bundle_is_published_with_its_proof(tmp_path):
    candidate = make_candidate(tmp_path)
    export = bundling.publish(candidate, tmp_path / "models", "toy")
    bundle = store.read(tmp_path / "models", "toy", 1)
    manifest = bundle.manifest
    assert export.strategy.name == "dynamo"
    assert manifest.labels == LABELS
    assert manifest.provenance.run_id == "run-1"
    assert {"torch", "onnx", "pillow", "taxon"} <= manifest.provenance.libraries.keys()
    assert manifest.metrics["accuracy"] == pytest.approx(21 / 24)
    assert manifest.metrics["parity_file_count"] == 24
    assert manifest.metrics["parity_top1_agreement"] == 1.0
    assert manifest.metrics["parity_max_score_difference"] < 1e-6
    assert manifest.variants[0].accuracy == pytest.approx(21 / 24)
    assert set(manifest.variants[0].latency_ms) == {1, 8}
    assert json.loads(bundle.read("report/metrics.json"))["strategy"]["name"] == "dynamo"
    properties = {entry.key: entry.value for entry in onnx.load(bundle.folder / "model.onnx").metadata_props}
    assert properties == manifest.contract()


@pytest.mark.slow
def test_goldens_are_real_files_with_torchs_scores(tmp_path):
    candidate = make_candidate(tmp_path)
    manifest = bundling.publish(candidate, tmp_path / "models", "toy").bundle.manifest
    originals = {file.read_bytes() for file in candidate.files}
    folder = tmp_path / "models" / "toy" / "1"
    assert len(manifest.golden) == 16
    assert all((folder / golden.file).read_bytes() in originals for golden in manifest.golden)
    goldens.replay(folder, manifest)


@pytest.mark.slow
def test_versions_count_up(tmp_path):
    candidate = make_candidate(tmp_path)
    for _ in range(2):
        bundling.publish(candidate, tmp_path / "models", "toy", ladder=ONLY_FIRST)
    assert published(tmp_path / "models") == [1, 2]


@pytest.mark.slow
def test_who_publishes_meanwhile_gets_its_version_and_the_other_the_next(tmp_path, monkeypatch):
    """The second export starts and ends while the first has its files written and no version yet."""
    candidate, others, write_report = make_candidate(tmp_path), [], bundling.write_report

    def write_and_publish(*arguments):
        write_report(*arguments)
        if not others:
            others.append(None)
            others[0] = bundling.publish(candidate, tmp_path / "models", "toy", ladder=ONLY_FIRST)

    monkeypatch.setattr(bundling, "write_report", write_and_publish)
    export = bundling.publish(candidate, tmp_path / "models", "toy", ladder=ONLY_FIRST)
    assert (others[0].bundle.manifest.version, export.bundle.manifest.version) == (1, 2)
    for version in (1, 2):
        goldens.replay(
            tmp_path / "models" / "toy" / str(version), store.read(tmp_path / "models", "toy", version).manifest
        )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first_version(tmp_path_factory):
    """A repository."""
    folder = tmp_path_factory.mktemp("first-version")
    bundling.publish(make_candidate(folder), folder / "models", "toy", ladder=ONLY_FIRST)
    return folder / "models"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (onnx, "save"),
        (quantise, "quant_pre_process"),
        (goldens, "write_golden"),
        (bundling, "write_report"),
        (os, "fsync"),
        (pathlib.Path, "write_text"),
        (pathlib.Path, "rename"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_full_disk_at_any_step_leaves_the_repository_as_it_was(first_version, tmp_path, monkeypatch, owner, name):
    candidate = make_candidate(tmp_path)
    candidate = dataclasses.replace(candidate, training_files=candidate.files, training_answers=candidate.answers)
    models = shutil.copytree(first_version, tmp_path / "models")
    before = contents(models)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(OSError, match="No space left"):
            bundling.publish(candidate, models, "toy", bundling.Settings(precisions=("int8",)))
    assert contents(models) == before
    assert published(models) == [1]


def change_weight(path):
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda entry: np.prod(entry.dims))
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] += 0.3
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)


def with_mean(mean):
    def write(served, shape, path, strategy):
        write_graph(Served(served.network, mean, STD, served.task), shape, path, strategy)

    return write


def with_permuted_head(served, shape, path, strategy):
    network = ToyNetwork()
    network.fc.weight.data = network.fc.weight.data[[1, 0, 2]]
    network.fc.bias.data = network.fc.bias.data[[1, 0, 2]]
    write_graph(Served(network, MEAN, STD, served.task), shape, path, strategy)


@pytest.mark.parametrize(
    "exporter",
    [corrupting(change_weight), with_mean((0.41, 0.45, 0.5)), with_permuted_head],
    ids=["perturbed weight", "wrong mean", "swapped labels"],
)
def test_a_graph_that_answers_differently_is_never_published(tmp_path, exporter):
    candidate = make_candidate(tmp_path)
    with pytest.raises(ExportError, match="nothing was published"):
        bundling.publish(candidate, tmp_path / "models", "toy", ladder=ONLY_FIRST, write_graph=exporter)
    assert published(tmp_path / "models") == []
    assert list((tmp_path / "models" / "toy").iterdir()) == []


class AlwaysDropping(ToyNetwork):
    """Dropout written as a function call with `training=True`: no module is in training mode."""

    def forward(self, pictures):
        maps = self.norm(self.conv(pictures)).relu()
        return self.fc(torch.nn.functional.dropout(maps.mean(dim=(2, 3)), 0.5, training=True))


def test_dropout_left_on_inside_the_network_is_caught(tmp_path):
    candidate = make_candidate(tmp_path, network=AlwaysDropping(), expected_accuracy=None)
    with pytest.raises(ExportError, match=r"scores differ|agreement"):
        bundling.publish(candidate, tmp_path / "models", "toy", ladder=ONLY_FIRST)
    assert published(tmp_path / "models") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("green", "blue", "red")},
        {"mean": (0.9, 0.1, 0.9)},
        {"network": ToyNetwork(seed=3)},
    ],
    ids=["swapped labels", "wrong mean", "other weights"],
)
def test_a_checkpoint_that_differs_from_what_was_trained_is_caught(tmp_path, changes):
    """Graph and checkpoint agree with each other; only what training measured gives the fault away."""
    candidate = make_candidate(tmp_path, **changes)
    with pytest.raises(ExportError, match=r"is known to be 87\.50%"):
        bundling.publish(candidate, tmp_path / "models", "toy")


def test_labels_swapped_in_the_graph_alone_are_caught(tmp_path):
    """The numbers are right, the names are not: the gate reads the names back from the file."""
    candidate = make_candidate(tmp_path)
    other = dataclasses.replace(candidate, labels=("green", "blue", "red"))
    path = tmp_path / "model.onnx"
    write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    logits = parity.reference_logits(candidate.network, candidate.files, candidate.pixels, MEAN, STD)
    reference = parity.scores_of(logits, "single_label")
    graph.tidy(path, {"taxon.labels": json.dumps(other.labels)})
    (result,) = gate.check(path, candidate, reference)
    assert any("accuracy goes from 87.50%" in fault for fault in result.faults)


@pytest.mark.slow
def test_the_ladder_goes_on_after_a_bad_graph_and_says_so(tmp_path):
    tried = []

    def write(served, shape, path, strategy):
        tried.append(strategy.name)
        write_graph(served, shape, path, strategy)
        if strategy.name == "dynamo":
            change_weight(path)

    export = bundling.publish(make_candidate(tmp_path), tmp_path / "models", "toy", write_graph=write)
    assert tried == ["dynamo", "dynamo-unoptimised"]
    assert export.strategy.name == "dynamo-unoptimised"
    (attempt,) = export.attempts
    assert attempt.reason.startswith("CPUExecutionProvider: ")
    assert "they part at " in attempt.reason


def test_other_label_counts_are_refused(tmp_path):
    with pytest.raises(ExportError, match="4 scores for 3 labels"):
        bundling.publish(make_candidate(tmp_path, network=ToyNetwork(4)), tmp_path / "models", "toy")


def test_unknown_true_labels_are_refused(tmp_path):
    candidate = make_candidate(tmp_path)
    candidate = dataclasses.replace(candidate, answers=(("purple",), *candidate.answers[1:]))
    with pytest.raises(ExportError, match="purple"):
        bundling.publish(candidate, tmp_path / "models", "toy")


def test_no_pictures_no_bundle(tmp_path):
    with pytest.raises(ExportError, match="no validation pictures"):
        bundling.publish(make_candidate(tmp_path, files=(), answers=()), tmp_path / "models", "toy")


def test_an_unreadable_validation_picture_is_named_and_nothing_published(tmp_path):
    candidate = make_candidate(tmp_path)
    candidate.files[5].write_bytes(b"torn")
    with pytest.raises(ParityError, match=r"005\.png"):
        bundling.publish(candidate, tmp_path / "models", "toy")
    assert not (tmp_path / "models").exists()


def test_a_golden_that_answers_differently_is_found(tmp_path):
    manifest = bundling.publish(make_candidate(tmp_path), tmp_path / "models", "toy").bundle.manifest
    folder = tmp_path / "models" / "toy" / "1"
    shutil.copyfile(folder / manifest.golden[1].file, folder / manifest.golden[0].file)
    with pytest.raises(ExportError, match=r"not answer as torch did: golden/00\.png: in a batch of 1 "):
        goldens.replay(folder, manifest)


def test_several_labels_are_exported_with_a_sigmoid(tmp_path):
    candidate = make_candidate(tmp_path)
    answers = tuple((*answer, *([] if "red" in answer else ["red"])) for answer in candidate.answers)
    candidate = dataclasses.replace(candidate, task="multi_label", answers=answers, expected_accuracy=None)
    manifest = bundling.publish(candidate, tmp_path / "models", "toy").bundle.manifest
    assert manifest.task == "multi_label"
    assert any(not 0.99 < sum(golden.scores) < 1.01 for golden in manifest.golden)


def test_goldens_go_round_the_classes_from_the_least_certain():
    answers = [("a",)] * 5 + [("b",)] * 1
    certainty = np.array([0.9, 0.5, 0.7, 0.6, 0.8, 0.99], dtype=np.float32)
    assert goldens.spread_over_classes(answers, certainty, 4) == [1, 5, 3, 2]


def test_goldens_of_many_classes_spread_evenly():
    answers = [(f"{number:03d}",) for number in range(100)]
    chosen = goldens.spread_over_classes(answers, np.full(100, 0.5, dtype=np.float32), 10)
    assert chosen == list(range(0, 100, 10))
