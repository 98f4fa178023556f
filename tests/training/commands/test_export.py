import dataclasses
import json

import pytest
import torch

from taxon.bundle import signing, store
from taxon.bundle.manifest import PixelSpec
from taxon.training.commands import export
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.exporting import parity
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests.keys import write_keys
from tests.training.toy_classifier import write_pictures

LABELS = ("cat", "dog")
PIXELS = PixelSpec(resize=16, crop=(16, 16))


@pytest.fixture
def run(tmp_path):
    """A finished run of a network that was never trained; its accuracy is what it happens to be."""
    torch.manual_seed(0)
    files = write_pictures(tmp_path / "data" / "val", 12)
    samples = tuple(
        Sample(path=path, label=int(i % 4 == 0), split="val", sha256=f"{i:064x}") for i, path in enumerate(files)
    )
    run = Run.create(tmp_path / "Pets 2", Labelled(tmp_path / "data", LABELS, samples), 'model = "small_cnn"\n', seed=7)
    network = model.build("small_cnn", 2).eval()
    logits = parity.reference_logits(network, files, PIXELS, (0.5,) * 3, (0.25,) * 3)
    checkpoint = Checkpoint(
        model="small_cnn",
        labels=LABELS,
        task="single_label",
        pixels=PIXELS,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        state=network.state_dict(),
        metrics={"accuracy": float((logits.argmax(1) == [i % 4 == 0 for i in range(12)]).mean()), "loss": 0.7},
        epoch=1,
        run_id=run.id,
    )
    checkpoint.save(run.best_path)
    return run


def test_a_run_becomes_a_bundle(run, tmp_path, capsys):
    assert export.main([str(run.folder), "--models", str(tmp_path / "models")]) == 0
    bundle = store.read(tmp_path / "models", "pets-2", 1)
    manifest = bundle.manifest
    assert manifest.labels == LABELS
    assert manifest.provenance.run_id == run.id
    assert manifest.provenance.data_digest == run.data_digest
    assert manifest.provenance.seed == 7
    assert manifest.provenance.recipe == {"model": "small_cnn"}
    assert manifest.metrics["loss"] == pytest.approx(0.7)
    assert manifest.pixels == PIXELS
    assert json.loads(bundle.read("report/metrics.json"))["parity"][0]["provider"] == "CPUExecutionProvider"
    printed = capsys.readouterr().out
    assert "100.00%" in printed
    assert "published pets-2 version 1" in printed


def test_other_ways_of_decoding_go_into_the_bundle(run, tmp_path):
    words = [str(run.folder), "--models", str(tmp_path / "models"), "--name", "pets", "--resampler", "simd"]
    assert export.main([*words, "--scaled-decoding"]) == 0
    pixels = store.read(tmp_path / "models", "pets", 1).manifest.pixels
    assert pixels.scaled_decoding
    assert pixels.resampler == "simd"


def refuse(capsys, *words):
    assert export.main([*map(str, words)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("taxon export: ")
    assert message.count("\n") == 1
    return message


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert "not the folder of a run" in refuse(capsys, tmp_path, "--models", tmp_path / "models")


def test_a_run_without_a_checkpoint(run, tmp_path, capsys):
    run.best_path.unlink()
    assert "best.pt does not exist" in refuse(capsys, run.folder, "--models", tmp_path / "models")


@pytest.mark.parametrize("content", [b"[data", b"\xff"])
def test_a_damaged_recipe_of_a_run(run, tmp_path, capsys, content):
    (run.folder / "recipe.toml").write_bytes(content)
    assert "recipe.toml cannot be read" in refuse(capsys, run.folder, "--models", tmp_path / "models")


def test_a_name_that_cannot_be_a_folder(run, tmp_path, capsys):
    assert "--name" in refuse(capsys, run.folder, "--models", tmp_path / "models", "--name", "../Pets")


@pytest.mark.parametrize("changes", [{"labels": ("dog", "cat")}, {"run_id": "another"}])
def test_a_checkpoint_of_another_run(run, tmp_path, capsys, changes):
    dataclasses.replace(run.checkpoint(), **changes).save(run.best_path)
    message = refuse(capsys, run.folder, "--models", tmp_path / "models")
    assert "other labels" in message or "belongs to the run another" in message


def test_labels_swapped_everywhere_after_training(run, tmp_path, capsys):
    """labels.json and the checkpoint agree, so only the accuracy that training measured tells."""
    state = dict(run.checkpoint().state)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"].flip(0), state["fc.bias"].flip(0)
    assert run.checkpoint().metrics["accuracy"] != 0.5, "a swap would not show: choose another seed"
    dataclasses.replace(run.checkpoint(), state=state).save(run.best_path)
    assert "is known to be" in refuse(capsys, run.folder, "--models", tmp_path / "models")


@pytest.mark.slow
def test_a_tolerance_that_cannot_be_met(run, tmp_path, capsys):
    message = refuse(capsys, run.folder, "--models", tmp_path / "models", "--tolerance", "1e-12")
    assert "nothing was published" in message
    assert store.names(tmp_path / "models") == []


def test_a_repository_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "models").write_text("a file")
    assert "nothing was published" in refuse(capsys, run.folder, "--models", tmp_path / "models")


def test_a_bundle_is_signed_when_it_is_published(run, tmp_path, capsys):
    private, public = write_keys(tmp_path, "ours")
    words = [str(run.folder), "--models", str(tmp_path / "models"), "--name", "pets"]
    assert export.main([*words, "--sign-key", str(private)]) == 0
    assert store.read(tmp_path / "models", "pets", 1, signing.checker(public)).manifest.version == 1
    assert "--sign-key: " in refuse(capsys, *words, "--sign-key", public)
    assert store.versions(tmp_path / "models", "pets") == [1]
