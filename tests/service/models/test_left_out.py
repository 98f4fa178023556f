"""What lies in the folder of models and is not served: one warning each, with the reason, and in the index."""

import shutil

import pytest
from structlog.testing import capture_logs

from taxon.inference import open_inference_service_pb2 as pb
from taxon.service.models.folder import left_out
from tests.fakes import toy_bundle
from tests.inference_requests import CONTROL, stub_of
from tests.tensor_models import simple

REASONS = {
    "my model": "no name of a model",
    "modèle": "no name of a model",
    "_priv": "no name of a model",
    "unversioned": "beside the versions, not in one",
    "lettered": "v1 are no versions: name them 1, 2, 3",
    "padded": "01 are no versions",
    "empty": "holds no version",
    "mixed": "2.old are no versions",
    "half": "9 have no manifest.json",
    "weightless": "1 have no manifest.json and no *.onnx",
    "stray.onnx": "lies in no model's folder",
    "dangling": "is a symbolic link that leads nowhere",
    "gone": "the version 2 is a symbolic link that leads nowhere",
    "filed": "the version 2 is a file",
    "n" * 129: "at most 128 ASCII letters",
}


@pytest.fixture
def root(tmp_path):
    """One model that is served, one beside each way not to be, and what systems leave behind."""
    models = tmp_path / "models"
    toy_bundle(models)
    simple(models)
    whole = models / "simple" / "1"
    for name in ("my model", "modèle", "_priv"):
        shutil.copytree(whole, models / name / "1")
    shutil.copytree(whole, models / "unversioned")
    for name, version in (("lettered", "v1"), ("padded", "01"), ("mixed", "1"), ("mixed", "2.old")):
        shutil.copytree(whole, models / name / version)
    toy_bundle(models, "half")
    shutil.copytree(models / "half" / "1", models / "half" / "9").joinpath("manifest.json").unlink()
    for name in ("empty", "weightless/1", "lost+found", ".cache/1"):
        (models / name).mkdir(parents=True)
    (models / "weightless" / "1" / "model.pt").touch()
    (models / "stray.onnx").touch()
    (models / "README.md").touch()
    (models / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("gone", "filed"):
        shutil.copytree(whole, models / name / "1")
    (models / "gone" / "2").symlink_to(tmp_path / "nowhere")
    (models / "filed" / "2").touch()
    shutil.copytree(whole, models / ("n" * 129) / "1")
    return models


def test_each_has_its_reason(root):
    found = {one.name: one.reason for one in left_out(root)}
    assert found.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in found[name]


def test_nothing_is_left_out_where_all_is_served(tmp_path):
    toy_bundle(tmp_path)
    simple(tmp_path)
    (tmp_path / "simple" / "labels.txt").touch()
    (tmp_path / "simple" / "config.pbtxt").touch()
    assert left_out(tmp_path) == []
    assert left_out(tmp_path / "nowhere") == []


async def test_the_log_and_the_index_tell_them(serve, root):
    with capture_logs() as events:
        async with serve(root) as running:
            listed = (await stub_of(running).RepositoryIndex(pb.RepositoryIndexRequest())).models
            ready = (await stub_of(running).RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
            assert running.server.repository.refused_count == 0
    assert [event["model"] for event in events if event["event"] == "not served"] == sorted(REASONS)
    assert {one.name for one in ready} == {"colors", "simple", "half", "mixed", "gone", "filed"}
    unserved = {one.name: one for one in listed if one.state == "UNAVAILABLE"}
    assert unserved.keys() == REASONS.keys()
    assert {one.version for one in unserved.values()} == {""}
    assert REASONS["padded"] in unserved["padded"].reason


async def test_a_call_to_load_one_says_why_not(serve, root, refused):
    async with serve(root, *CONTROL) as running:
        stub = stub_of(running)
        error = await refused(stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="padded")))
        assert error.reason == "MODEL_REFUSED"
        assert "failed to load 'padded': 01 are no versions" in error.message
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="mixed"))
        shutil.move(root / "padded" / "01", root / "padded" / "1")
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="padded"))
        listed = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
    assert [(one.version, one.state) for one in listed if one.name == "padded"] == [("1", "READY")]
