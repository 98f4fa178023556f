"""Classifiers of numbers on their way into a bundle: what pictures do not cover."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from taxon.bundle import store
from taxon.training.commands import export, promote
from taxon.training.commands.train import main
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, examples, fusion, graph, parity
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.examples import Row
from taxon.training.exporting.graph import ServedNumbers
from taxon.training.exporting.of_run import from_run
from taxon.training.network.networks import Mlp
from taxon.training.runs.folder import Run
from tests.training.toy_classifier import corrupting, make_candidate

COLUMNS = ("size", "year")


def write_table(path, count=60, seed=0, columns=COLUMNS):
    random = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    sizes, years = random.normal(size=count) + 4 * kinds, random.normal(size=count) * 3 + 2020
    rows = [f"{size},{year},{('small', 'large')[kind]}" for size, year, kind in zip(sizes, years, kinds, strict=True)]
    path.write_text("\n".join([",".join([*columns, "answer"]), *rows]) + "\n")
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "houses.csv")
    words = ["--data", table, "--model", "mlp", "--epochs", 8, "--lr", 0.01, "--threads", 1, "--out", "run"]
    assert main([*map(str, words), "--no-report"]) == 0
    return Run.open(tmp_path / "run")


def test_a_run_on_numbers_becomes_a_bundle_that_standardises_itself(run, tmp_path):
    assert export.main([str(run.folder), "--models", str(tmp_path / "models"), "--name", "houses"]) == 0
    bundle = store.read(tmp_path / "models", "houses", 1)
    manifest, checkpoint = bundle.manifest, run.checkpoint()
    assert manifest.input.model_dump() == {"kind": "features", "dtype": "float32", "shape": (2,), "names": COLUMNS}
    assert manifest.metrics["parity_top1_agreement"] == 1.0
    assert manifest.metrics["accuracy"] == checkpoint.metrics["accuracy"]
    model = onnx.load(bundle.folder / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == manifest.contract()
    assert json.loads(manifest.contract()["taxon.features"]) == list(COLUMNS)

    # A golden through a network built from the checkpoint alone, with the statistics of the training rows.
    golden = manifest.golden[0]
    values = np.asarray(json.loads(bundle.read(golden.file)))
    standardised = (values - np.array(checkpoint.mean)) / np.array(checkpoint.std)
    with torch.inference_mode():
        logits = checkpoint.build_model()(torch.tensor(standardised[None], dtype=torch.float32))
    expected = (logits / manifest.calibration.temperature).softmax(-1)[0]
    np.testing.assert_allclose(golden.scores, expected, atol=1e-5)
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"features": values[None].astype(np.float32)})
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)


def test_a_table_that_was_changed_after_training_is_no_proof(run, tmp_path, capsys):
    lines = (tmp_path / "houses.csv").read_text().splitlines()
    lines[5] = re.sub(r"^[^,]+", "99", lines[5])
    (tmp_path / "houses.csv").write_text("\n".join(lines))
    assert export.main([str(run.folder), "--models", str(tmp_path / "models")]) == 2
    assert "houses.csv, row 5 is not what was trained on" in capsys.readouterr().err


def test_columns_that_were_renamed_after_training_are_no_proof(run, tmp_path, capsys):
    text = (tmp_path / "houses.csv").read_text()
    (tmp_path / "houses.csv").write_text(text.replace("size,year", "year,size"))
    assert export.main([str(run.folder), "--models", str(tmp_path / "models")]) == 2
    assert "has the columns ['year', 'size'], the classifier takes ['size', 'year']" in capsys.readouterr().err


def test_versions_are_compared_on_a_table(run, tmp_path, capsys):
    for _ in range(2):
        assert export.main([str(run.folder), "--models", str(tmp_path / "models"), "--name", "houses"]) == 0
    held_out = write_table(tmp_path / "held_out.csv", seed=1)
    words = ["houses", "2", "--models", str(tmp_path / "models")]
    assert promote.main([*words, "--data", str(held_out)]) == 0
    assert "difference on 60 pictures" in capsys.readouterr().out
    other = write_table(tmp_path / "other.csv", columns=("size", "age"))
    assert promote.main(["houses", "1", *words[2:], "--data", str(other)]) == 2
    assert "has the columns ['size', 'age']" in capsys.readouterr().err


def test_an_ensemble_of_numbers_averages_scores(run):
    member = fusion.Ingredient(run.checkpoint(), from_run(run.folder), 1.0)
    fused = fusion.ensemble([member, member]).network
    values = torch.randn(3, 2)
    torch.testing.assert_close(fused(values).softmax(-1), member.candidate.network(values).softmax(-1))


def candidate_of_rows(tmp_path, **changes):
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    values = (random.normal(size=(24, 2)) * [1, 3] + [0, 2020]).astype(np.float32)
    rows = tuple(Row(tmp_path / "rows.csv", number, row) for number, row in enumerate(values))
    network, mean, std = Mlp(3, 2).eval(), (0.0, 2020.0), (1.0, 3.0)
    network.fc.weight.data.mul_(8)
    best = parity.reference_logits(network, rows, None, mean, std).argmax(1)
    answers = tuple((("blue", "green", "red")[index],) for index in best)
    parts = {"pixels": None, "files": rows, "answers": answers, "features": COLUMNS, "mean": mean, "std": std}
    return make_candidate(tmp_path, **{**parts, "network": network, "expected_accuracy": 1.0, **changes})


def shift_the_mean(path):
    model = onnx.load(path)
    (mean,) = (entry for entry in model.graph.initializer if "mean" in entry.name)
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + np.float32(0.5), mean.name))
    onnx.save(model, path)


def test_wrong_statistics_in_the_graph_are_caught(tmp_path):
    candidate, ladder = candidate_of_rows(tmp_path), graph.LADDER[:1]
    with pytest.raises(ExportError, match="nothing was published"):
        bundling.publish(candidate, tmp_path / "m", "rows", ladder=ladder, write_graph=corrupting(shift_the_mean))
    bundling.publish(candidate, tmp_path / "m", "rows", ladder=ladder)


@pytest.mark.parametrize("strategy", graph.LADDER, ids=lambda strategy: strategy.name)
def test_every_exporter_keeps_numbers_far_from_zero(tmp_path, strategy):
    served = ServedNumbers(Mlp(3, 2).eval(), (1e6, 0.0), (2.0, 1.0), "single_label")
    graph.write_graph(served, (2,), tmp_path / "model.onnx", strategy)
    values = np.float32([[1e6 + 1, 1], [1e6 - 3, 0], [1e6, -1]])
    with torch.inference_mode():
        expected = served.network(torch.tensor([[0.5, 1], [-1.5, 0], [0, -1]])).softmax(-1)
    scores = parity.run(parity.open_session(tmp_path / "model.onnx"), values)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_pictures_and_numbers_are_not_mixed_up(tmp_path):
    row = Row(tmp_path / "rows.csv", 1, np.zeros(2, np.float32))
    with pytest.raises(TrainingError, match=r"rows\.csv, row 2 has numbers"):
        examples.to_array(row, make_candidate(tmp_path).pixels)
    with pytest.raises(TrainingError, match="the classifier takes numbers"):
        examples.to_array(tmp_path / "a.png", None)
