import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from taxon.bundle import store
from taxon.bundle.manifest import PixelSpec
from taxon.training.commands import fuse
from taxon.training.commands.fuse import Ensemble, Ingredient
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import ExportError
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests.training.toy_classifier import LABELS, PIXELS, ToyNetwork, make_candidate, write_pictures

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


def test_an_ensemble_takes_other_architectures_and_normalisations(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", mean=0.4), make_run("c", kind="cnn2")]
    words = [*map(str, runs), "--method", "ensemble", "--models", str(tmp_path / "models"), "--name", "fused"]
    assert fuse.main(words) == 0


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_an_ensemble_answers_the_average_of_its_members_scores(tmp_path, task):
    members = [
        make_candidate(tmp_path, network=ToyNetwork(seed=seed), task=task, mean=(0.1 * seed + 0.3,) * 3)
        for seed in range(3)
    ]

    def scores(network, mean, std):
        return parity.scores_of(parity.reference_logits(network, members[0].files, PIXELS, mean, std), task)

    expected = np.mean([scores(member.network, member.mean, member.std) for member in members], axis=0)
    actual = scores(Ensemble(members), members[0].mean, members[0].std)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def ingredient(tmp_path, accuracy, state):
    candidate = make_candidate(tmp_path)
    checkpoint = Checkpoint("toy", LABELS, "single_label", PIXELS, (0.5,), (0.5,), state, {}, 1, f"run-{accuracy}")
    return Ingredient(checkpoint, dataclasses.replace(candidate, run_id=checkpoint.run_id), accuracy)


def test_the_soup_leaves_out_what_does_harm(tmp_path, monkeypatch):
    """The accuracy of an average is made to be its weight: 0.9 with the second, less with the third."""
    parts = [
        ingredient(tmp_path, accuracy, {"w": torch.tensor([value])})
        for accuracy, value in [(0.8, 0.8), (0.7, 1.0), (0.6, 0.0)]
    ]
    monkeypatch.setattr(Checkpoint, "build_model", lambda self: self.state["w"])
    monkeypatch.setattr(fuse, "_accuracy", lambda candidate: float(candidate.network))
    measured_anew = []
    monkeypatch.setattr(fuse, "estimate_batch_statistics", lambda trial: measured_anew.append(float(trial.network)))
    fused = fuse.soup(parts)
    assert measured_anew == pytest.approx([0.9, 0.6])  # each average, before it is judged
    assert fused.parents == ("run-0.8", "run-0.7")
    assert fused.expected_accuracy == pytest.approx(0.9)


def colours_by_class(folder, count):
    """Dark pictures first, then light ones: the order in which training files lie."""
    folder.mkdir()
    files = []
    for number in range(count):
        level = 40 if number < count // 2 else 200
        noise = np.random.default_rng(number).integers(-30, 31, (10, 10, 3))
        files.append(folder / f"{number:03d}.png")
        Image.fromarray((level + noise).astype(np.uint8)).save(files[-1])
    return tuple(files)


def test_batch_statistics_are_those_of_the_training_pictures(tmp_path):
    """The whole spread of the data, though files lie by class: within one class it is far smaller."""
    files = colours_by_class(tmp_path / "train", 3 * parity.REFERENCE_BATCH)
    candidate = make_candidate(tmp_path, training_files=files)
    fuse.estimate_batch_statistics(candidate)
    network = candidate.network
    with torch.no_grad():
        inputs = torch.cat([*parity.network_inputs(files, PIXELS, candidate.mean, candidate.std)])
        maps = network.conv(inputs)
    torch.testing.assert_close(network.norm.running_mean, maps.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.norm.running_var, maps.var((0, 2, 3)), atol=1e-2, rtol=0.05)
    assert not any(module.training for module in network.modules())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fuse.estimate_batch_statistics(candidate)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_last_batch_of_one_picture_is_left_out(tmp_path):
    files = write_pictures(tmp_path / "train", parity.REFERENCE_BATCH + 1)
    candidate = make_candidate(tmp_path, training_files=files)
    fuse.estimate_batch_statistics(candidate)
    assert candidate.network.norm.num_batches_tracked == 1


def test_without_training_pictures_batch_statistics_cannot_be_measured(tmp_path):
    with pytest.raises(ExportError, match="no training pictures"):
        fuse.estimate_batch_statistics(make_candidate(tmp_path))
    fuse.estimate_batch_statistics(make_candidate(tmp_path, network=torch.nn.Linear(2, 3)))  # has none


def test_counters_are_not_averaged():
    states = [{"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([2.0]), "n": torch.tensor(4)}]
    average = fuse.average(states)
    assert average["w"].item() == 1.5
    assert average["n"].item() == 3
