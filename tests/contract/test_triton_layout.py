"""A model folder is loaded by Triton as it is: its rules for folders, files and tensors, applied to a real export.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

import dataclasses
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from taxon.bundle import version_labels
from taxon.training.exporting import bundling, variants
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.evidence import Budget
from taxon.training.releases import promotions
from tests.training.toy_classifier import make_candidate


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two versions, the second with a judge of familiarity, lighter variants, a promotion and a label: all that Taxon
    ever writes there.
    """
    folder = tmp_path_factory.mktemp("triton")
    candidate = make_candidate(folder)
    candidate = dataclasses.replace(
        candidate, training_files=candidate.files, training_answers=candidate.answers, head="fc"
    )
    budget = Budget(judged_by="estimate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "latencies", lambda paths, *_: [{1: 1.0, 8: 8.0}, {1: 0.5, 8: 4.0}][: len(paths)])
        for coverage in (None, 0.75):
            settings = Settings(precisions=("fp16", "int8"), budget=budget, unknown_coverage=coverage)
            bundling.publish(candidate, folder / "models", "toy", settings)
    promotions.promote(folder / "models", "toy", 2, 1, None, None)
    version_labels.write(folder / "models", "toy", "candidate", 1)
    return folder / "models"


def graphs(models):
    return sorted(models.glob("toy/*/*.onnx"))


def test_versions_are_numbers_and_nothing_else_is_one(models):
    """Triton takes folders named by a number without leading zeros for versions, and passes over the rest."""
    assert [path.name for path in models.iterdir()] == ["toy"]
    names = {path.name for path in (models / "toy").iterdir()}
    assert names == {"1", "2", "traffic.json", "promotions.jsonl", ".last_version"}
    assert all((models / "toy" / version / "model.onnx").is_file() for version in ("1", "2"))


def test_every_graph_is_valid_with_full_shape_inference(models):
    assert [path.name for path in graphs(models)] == ["model.fp16.onnx", "model.int8.onnx", "model.onnx"] * 2
    for path in graphs(models):
        onnx.checker.check_model(path, full_check=True)


def test_every_graph_holds_its_own_weights(models, tmp_path):
    for path in graphs(models):
        model = onnx.load(path, load_external_data=False)
        assert all(entry.data_location == onnx.TensorProto.DEFAULT for entry in model.graph.initializer)
        alone = shutil.copy(path, tmp_path / "alone.onnx")
        session = onnxruntime.InferenceSession(alone, providers=["CPUExecutionProvider"])
        shapes = [output.shape for output in session.run(None, {"image": np.zeros((5, 10, 10, 3), np.uint8)})]
        assert shapes == ([(5, 3), (5, 1)] if path.parent.name == "2" else [(5, 3)])


def test_operators_are_standard(models):
    """Triton's ONNX backend has ONNX Runtime's own operators too, but other versions of them."""
    for path in graphs(models):
        model = onnx.load(path)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        assert opset <= 21


def test_the_configuration_can_be_completed_from_the_graph(models):
    """Without config.pbtxt Triton derives it: one free first axis everywhere means that it may batch."""
    for path in graphs(models):
        model = onnx.load(path).graph
        shapes = {
            entry.name: [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]
            for entry in (*model.input, *model.output)
        }
        assert shapes["image"] == ["batch", 10, 10, 3]
        for name, width in {"scores": 3, **({"familiarity": 1} if path.parent.name == "2" else {})}.items():
            batch, *rest = shapes[name]
            assert isinstance(batch, str)
            assert rest == [width]
