"""A server that requires signatures: what it serves, in threads and in worker processes, and after a reload."""

import pytest

from taxon.bundle import signing
from taxon.inference import open_inference_service_pb2 as inference_pb
from taxon.service.config import parse
from taxon.service.server import main
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle
from tests.inference_requests import CONTROL, stub_of
from tests.keys import write_keys
from tests.tensor_models import simple


@pytest.fixture
def root(tmp_path):
    """A signed, an unsigned and a foreign bundle, one that was changed after it was signed, and a bare graph."""
    root = tmp_path / "models"
    ours, other = (signing.signer(write_keys(tmp_path, name)[0]) for name in ("ours", "other"))
    for name, sign in (("ours", ours), ("unsigned", None), ("foreign", other), ("changed", ours)):
        folder = toy_bundle(root, name).folder
        if sign:
            signing.write(folder, sign)
    manifest = root / "changed" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"accuracy": 0.5', '"accuracy": 0.9'))
    simple(root)
    return root


async def reasons(running):
    listed = await stub_of(running).RepositoryIndex(inference_pb.RepositoryIndexRequest())
    return {model.name: (model.state, model.reason) for model in listed.models}


async def test_only_what_the_key_has_signed_is_served(serve, root):
    flags = ["--require-signature", str(root.parent / "ours.pub")]
    async with serve(root, *flags) as running:
        found = await reasons(running)
        request = pb.ClassifyRequest(image=picture(COLORS["blue"]))
        assert (await running.stub.Classify(request)).classifications[0].label == "blue"
    assert found["ours"] == ("READY", "")
    assert found["unsigned"] == ("UNAVAILABLE", "it is not signed, and a signature is required")
    for name in ("foreign", "changed"):
        assert found[name][0] == "UNAVAILABLE"
        assert "not by a required key" in found[name][1]
    assert "has no manifest, so it cannot be signed" in found["simple"][1]


async def test_a_reload_checks_again(serve, root, refused):
    flags = ["--require-signature", str(root.parent / "ours.pub"), *CONTROL]
    load = inference_pb.RepositoryModelLoadRequest(model_name="unsigned")
    async with serve(root, *flags) as running:
        error = await refused(stub_of(running).RepositoryModelLoad(load))
        assert error.reason == "MODEL_REFUSED"
        assert "it is not signed" in error.message
        signing.write(root / "unsigned" / "1", signing.signer(root.parent / "ours.key"))
        await stub_of(running).RepositoryModelLoad(load)
        assert (await reasons(running))["unsigned"] == ("READY", "")
        # A new version by another key does not take the place of the old one.
        signing.write(toy_bundle(root, "ours").folder, signing.signer(root.parent / "other.key"))
        await refused(stub_of(running).RepositoryModelLoad(inference_pb.RepositoryModelLoadRequest(model_name="ours")))
        request = pb.ClassifyRequest(image=picture(COLORS["blue"]), model_name="ours")
        assert (await running.stub.Classify(request)).model_version == "1"


async def test_without_the_setting_everything_is_served(serve, root):
    async with serve(root) as running:
        assert (await reasons(running))["unsigned"] == ("READY", "")


def test_a_key_that_cannot_be_used_ends_the_start(root, capsys):
    assert main(["--models", str(root), "--require-signature", str(root.parent / "ours.key")]) == 1
    assert "ours.key is not a public key" in capsys.readouterr().err
    assert parse(["--models", str(root)]).require_signature is None
