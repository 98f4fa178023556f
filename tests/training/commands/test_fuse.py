import numpy as np
import pytest
import torch

from taxon.bundle import store
from taxon.bundle.manifest import PixelSpec
from taxon.training.commands import fuse
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.exporting import parity
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests.training.toy_classifier import write_pictures

SPEC = PixelSpec(resize=16, crop=(16, 16))


@pytest.fixture
def make_run(tmp_path):
    """Untrained networks: near relatives of one, so that their average is one of them too."""
    files = write_pictures(tmp_path / "data", 12)
    training_files = write_pictures(tmp_path / "data" / "train", 40)
    teacher = build(0, 0.0)
    logits = parity.reference_logits(teacher, files, SPEC, (0.5,) * 3, (0.25,) * 3)
    truth = (logits[:, 0] - logits[:, 1] > np.median(logits[:, 0] - logits[:, 1])).astype(int)

    def make(name, *, noise=0.0, split="val", mean=0.5, kind="small_cnn"):
        samples = tuple(
            Sample(path=path, label=int(label), split=split if index else "val", sha256=f"{index:064x}")
            for index, (path, label) in enumerate(zip(files, truth, strict=True))
        )
        samples += tuple(
            Sample(path=path, label=number % 2, split="train", sha256=f"{100 + number:064x}")
            for number, path in enumerate(training_files)
        )
        folder = tmp_path / name
        run = Run.create(folder, Labelled(tmp_path / "data", ("cat", "dog"), samples), 'model = "x"\n', seed=0)
        network = build(0, noise, kind)
        logits = parity.reference_logits(network, files, SPEC, (mean,) * 3, (0.25,) * 3)
        Checkpoint(
            model=kind,
            labels=("cat", "dog"),
            task="single_label",
            pixels=SPEC,
            mean=(mean,) * 3,
            std=(0.25,) * 3,
            state=network.state_dict(),
            metrics={"accuracy": float((logits.argmax(1) == truth).mean())} if split == "val" else {},
            epoch=1,
            run_id=run.id,
        ).save(run.best_path)
        return folder

    return make


def build(seed, noise, kind="small_cnn"):
    torch.manual_seed(seed)
    network = model.build(kind, 2).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += noise * parameter.data.std().nan_to_num() * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("method", ["soup", "ensemble"])
def test_runs_become_one_bundle(make_run, tmp_path, capsys, method):
    runs = [str(make_run(f"run-{index}", noise=0.02 * index)) for index in range(3)]
    assert fuse.main([*runs, "--method", method, "--models", str(tmp_path / "models"), "--name", "fused"]) == 0
    manifest = store.read(tmp_path / "models", "fused", 1).manifest
    assert manifest.provenance.parents
    assert manifest.provenance.recipe["fuse"] == method
    assert manifest.metrics["parity_top1_agreement"] == 1.0
    if method == "ensemble":
        assert len(manifest.provenance.parents) == 3
    else:
        assert manifest.metrics["accuracy"] >= manifest.metrics["accuracy_of_member_0"]


def refuse(capsys, tmp_path, *words):
    assert fuse.main([*map(str, words), "--models", str(tmp_path / "models"), "--name", "fused"]) == 2
    return capsys.readouterr().err


def test_one_run_is_nothing_to_fuse(make_run, tmp_path, capsys):
    assert "two runs or more" in refuse(capsys, tmp_path, make_run("a"), "--method", "soup")


def test_runs_with_other_splits_would_be_judged_by_their_own_training(make_run, tmp_path, capsys):
    message = refuse(capsys, tmp_path, make_run("a"), make_run("b", split="train"), "--method", "soup")
    assert "differ in their data digest" in message


@pytest.mark.parametrize(("other", "part"), [({"mean": 0.4}, "mean"), ({"kind": "cnn2"}, "model")])
def test_a_soup_needs_runs_of_one_kind(make_run, tmp_path, capsys, other, part):
    message = refuse(capsys, tmp_path, make_run("a"), make_run("b", **other), "--method", "soup")
    assert f"differ in their {part}: use an ensemble" in message


@pytest.mark.slow
def test_an_ensemble_takes_other_architectures_and_normalisations(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", mean=0.4), make_run("c", kind="cnn2")]
    words = [*map(str, runs), "--method", "ensemble", "--models", str(tmp_path / "models"), "--name", "fused"]
    assert fuse.main(words) == 0
