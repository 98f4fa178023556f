import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from taxon.bundle import store
from taxon.training.commands import import_onnx
from taxon.training.exporting import wrapped
from tests.training.toy_classifier import LABELS, MEAN, STD, make_candidate


class Scoring(nn.Module):
    def __init__(self, network, *, last=False, byte=False):
        super().__init__()
        self.network, self.last, self.byte = network, last, byte
        self.eval()

    def forward(self, pictures):
        values = pictures
        if self.byte:
            values = values.float() / 255
        if self.last:
            values = values.movedim(-1, 1)
        logits = self.network(values)
        return logits.softmax(dim=-1) if self.last or self.byte else logits


def write(path, module, example, **options):
    program = torch.onnx.export(
        module,
        (example,),
        None,
        dynamo=True,
        dynamic_shapes=options.pop("dynamic", ({0: "batch"},)),
        verbose=False,
        **options,
    )
    program.save(path)


@pytest.fixture
def parts(tmp_path):
    candidate = make_candidate(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    (tmp_path / "pixels.json").write_text(json.dumps({"resize": 12, "crop": [10, 10]}))
    for file, (label,) in zip(candidate.files, candidate.answers, strict=True):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / file.name).write_bytes(file.read_bytes())
    return tmp_path, candidate


def call(folder, *more, normalise=True):
    words = ["--labels", "labels.txt", "--pixels", "pixels.json", "--data", "data", "--models", "models"]
    paths = [word if word.startswith("--") else str(folder / word) for word in words]
    normalisation = ["--mean", *map(str, MEAN), "--std", *map(str, STD)] if normalise else []
    return import_onnx.main([str(folder / "given.onnx"), *paths, "--name", "toy", *normalisation, *more])


def check(folder, candidate):
    manifest = store.read(folder / "models", "toy", 1).manifest
    assert manifest.labels == LABELS
    assert manifest.metrics["accuracy"] == pytest.approx(21 / 24)
    path = folder / "models" / "toy" / "1" / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props} == manifest.contract()


def test_a_graph_of_logits_is_wrapped(parts):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    assert call(folder, "--gives", "logits") == 0
    check(folder, candidate)


def test_a_graph_of_scores_with_channels_last_is_wrapped(parts):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network, last=True), torch.zeros(2, 10, 10, 3))
    assert call(folder, "--gives", "scores") == 0
    check(folder, candidate)


def test_a_graph_that_takes_bytes_is_wrapped(parts):
    folder, _ = parts
    network = make_candidate(folder / "again").network
    write(folder / "given.onnx", Scoring(network, byte=True), torch.zeros(2, 3, 10, 10, dtype=torch.uint8))
    assert call(folder, "--gives", "scores", normalise=False) == 0
    assert store.versions(folder / "models", "toy") == [1]


def test_a_free_height_and_width_are_fixed_to_the_pixels(parts):
    folder, candidate = parts
    free = ({0: "batch", 2: "height", 3: "width"},)
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 12, 14), dynamic=free)
    assert call(folder, "--gives", "logits") == 0
    check(folder, candidate)


def test_weights_beside_the_graph_are_taken_in(parts):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    onnx.save(model, folder / "given.onnx", save_as_external_data=True, location="given.data", size_threshold=0)
    assert call(folder, "--gives", "logits") == 0
    assert sorted(path.name for path in (folder / "models" / "toy" / "1").glob("*.*")) == [
        "manifest.json",
        "model.onnx",
    ]


def refuse(capsys, folder, *more, **options):
    assert call(folder, *more, **options) == 2
    message = capsys.readouterr().err
    assert message.startswith("taxon import-onnx: ")
    assert message.count("\n") == 1
    assert not (folder / "models").exists() or store.names(folder / "models") == []
    return message


def test_several_outputs_are_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    maps = onnx.helper.make_tensor_value_info(relu.output[0], onnx.TensorProto.FLOAT, ["batch", 8, 8, 8])
    model.graph.output.append(maps)
    onnx.save(model, folder / "given.onnx")
    assert "2 outputs" in refuse(capsys, folder, "--gives", "logits")


def test_a_fixed_batch_is_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10), dynamic=None)
    assert "batch is fixed at 2" in refuse(capsys, folder, "--gives", "logits")


def test_another_picture_size_is_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 16, 16))
    assert "16" in refuse(capsys, folder, "--gives", "logits")


def test_another_label_count_is_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    (folder / "labels.txt").write_text("red\ngreen\nblue\nviolet\n")
    assert "3 scores for 4 labels" in refuse(capsys, folder, "--gives", "logits")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a"])
def test_what_is_no_graph_is_refused(parts, capsys, content):
    folder, _ = parts
    (folder / "given.onnx").write_bytes(content)
    refuse(capsys, folder, "--gives", "logits")


def test_missing_weights_are_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    onnx.save(model, folder / "given.onnx", save_as_external_data=True, location="given.data", size_threshold=0)
    (folder / "given.data").unlink()
    assert "not a whole ONNX graph" in refuse(capsys, folder, "--gives", "logits")


def test_weights_outside_the_folder_are_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    onnx.save(model, folder / "given.onnx", save_as_external_data=True, location="given.data", size_threshold=0)
    model = onnx.load(folder / "given.onnx", load_external_data=False)
    for entry in model.graph.initializer:
        for field in entry.external_data:
            if field.key == "location":
                field.value = "../given.data"
    (folder / "given.data").rename(folder.parent / "given.data")
    onnx.save(model, folder / "given.onnx")
    assert "not a whole ONNX graph" in refuse(capsys, folder, "--gives", "logits")


def test_an_unknown_operator_is_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    next(node for node in model.graph.node if node.op_type == "Relu").domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, folder / "given.onnx")
    assert "ONNX Runtime cannot load the graph" in refuse(capsys, folder, "--gives", "logits")


def test_an_opset_of_the_future_is_refused(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    model = onnx.load(folder / "given.onnx")
    model.opset_import[0].version = 999
    onnx.save(model, folder / "given.onnx")
    assert "opset" in refuse(capsys, folder, "--gives", "logits")


def test_bytes_with_a_mean_are_a_contradiction(parts, capsys):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network, byte=True), torch.zeros(2, 3, 10, 10, dtype=torch.uint8))
    assert "takes bytes" in refuse(capsys, folder, "--gives", "scores")


def test_the_wrapped_graph_is_compared_with_the_original(parts, capsys, monkeypatch):
    folder, candidate = parts
    write(folder / "given.onnx", Scoring(candidate.network), torch.zeros(2, 3, 10, 10))
    monkeypatch.setattr(wrapped, "_shaped", lambda *_: np.full((1, 3, 1, 1), 0.01, dtype=np.float32))
    assert "nothing was published" in refuse(capsys, folder, "--gives", "logits")
