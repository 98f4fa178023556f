"""Graphs as others make them: old ones, odd outputs, and outputs that are not what their user says."""

import json

import numpy as np
import pytest

from taxon.bundle import proof, store
from taxon.training.commands import import_onnx
from taxon.training.exporting import parity
from tests.training.folders import write_folder
from tests.training.graphs import SIDE, classifier


@pytest.fixture
def parts(tmp_path):
    write_folder(tmp_path / "data", 6)
    (tmp_path / "labels.txt").write_text("dark\nlight\n")
    (tmp_path / "pixels.json").write_text(json.dumps({"resize": SIDE, "crop": [SIDE, SIDE]}))
    return tmp_path


def call(folder, gives, *more) -> int:
    files = {"labels": "labels.txt", "pixels": "pixels.json", "data": "data", "models": "models"}
    words = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    return import_onnx.main([str(folder / "given.onnx"), *words, "--name", "other", "--gives", gives, *more])


def scores(folder):
    """What the published graph answers for its goldens, and what the original's weights make of them."""
    bundle = store.read(folder / "models", "other", 1)
    given = proof.inputs(bundle.manifest, bundle.read)
    return parity.run(parity.open_session(bundle.folder / "model.onnx"), given), given


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 18, 21])
@pytest.mark.parametrize("gives", ["logits", "scores"])
def test_every_opset_is_wrapped_and_answers_as_before(parts, opset, gives):
    old = opset < 9
    classifier(
        parts / "given.onnx",
        opset=opset,
        ir_version=3 if old else 8,
        end="Softmax" if gives == "scores" else "",
        weights_are_inputs=old,
    )
    assert call(parts, gives, "--calibration", "none") == 0
    answered, given = scores(parts)
    random = np.random.default_rng(0)
    logits = given.mean(axis=(1, 2)) / 255 @ (random.normal(size=(3, 2)) * 3) + [-1, 1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(answered, powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("options", [{"tail": "maps"}, {"output": "float16"}])
def test_outputs_of_other_shapes_and_types_are_wrapped(parts, options):
    classifier(parts / "given.onnx", **options)
    assert call(parts, "logits") == 0


@pytest.mark.parametrize(
    ("end", "gives", "reason"),
    [
        ("", "scores", "is not scores of one label per picture"),
        ("Sigmoid", "scores", "their sums from"),
        ("Softmax", "logits", "say --gives scores"),
        ("Percent", "logits", "those of every picture sum to 100; export it again"),
        ("Percent", "scores", "their sums from 100 to 100 instead of 1"),
        ("Sigmoid", "logits", "as behind a sigmoid"),
        ("ArgMax", "logits", "does it give the class alone?"),
    ],
)
def test_outputs_that_are_not_what_they_are_said_to_be_are_refused(parts, capsys, end, gives, reason):
    """Nothing else would show it: the wrapped graph agrees with its own reading of the original."""
    classifier(parts / "given.onnx", end=end)
    assert call(parts, gives) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (parts / "models").exists() or store.names(parts / "models") == []


def test_maps_of_several_places_are_counted_as_they_would_be_flattened(parts, capsys):
    classifier(parts / "given.onnx", tail="maps", classes=6)
    assert call(parts, "logits") == 2
    assert "6 scores for 2 labels" in capsys.readouterr().err


@pytest.mark.parametrize("batch", [-1, 0])
def test_a_batch_axis_of_minus_one_is_free(parts, batch):
    """As Keras and Paddle write it."""
    classifier(parts / "given.onnx", batch=batch)
    assert call(parts, "logits") == 0


@pytest.mark.parametrize(("tail", "shape"), [("turned", "[2, 32]"), ("one", "[]")])
def test_outputs_without_the_batch_in_front_are_refused(parts, capsys, tail, shape):
    write_folder(parts / "data", 16)
    classifier(parts / "given.onnx", tail=tail)
    assert call(parts, "logits") == 2
    assert f"the graph answers {shape} for a batch of 32: its first axis must be" in capsys.readouterr().err


def test_a_fixed_batch_is_refused(parts, capsys):
    classifier(parts / "given.onnx", batch=4)
    assert call(parts, "logits") == 2
    assert "the graph's batch is fixed at 4" in capsys.readouterr().err


def test_operators_before_opset_7_are_refused(parts, capsys):
    classifier(parts / "given.onnx", opset=6, ir_version=3, weights_are_inputs=True)
    assert call(parts, "logits") == 2
    assert "the oldest that can be wrapped is 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer (run `git lfs pull`)"),
        (b"<!DOCTYPE html><html>", "a web page (the download failed)"),
        (b"", "empty"),
    ],
)
def test_files_that_are_something_else_say_what(parts, capsys, content, reason):
    (parts / "given.onnx").write_bytes(content)
    assert call(parts, "logits") == 2
    assert f"is {reason}, not an ONNX graph" in capsys.readouterr().err
