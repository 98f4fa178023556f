import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from taxon.training.exporting import fusion, parity
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.fusion import Ensemble, Ingredient
from taxon.training.runs.checkpoint import Checkpoint
from tests.training.toy_classifier import LABELS, PIXELS, ToyNetwork, make_candidate, write_pictures


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
    monkeypatch.setattr(fusion, "_accuracy", lambda candidate: float(candidate.network))
    measured_anew = []
    monkeypatch.setattr(fusion, "estimate_batch_statistics", lambda trial: measured_anew.append(float(trial.network)))
    fused = fusion.soup(parts)
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
    fusion.estimate_batch_statistics(candidate)
    network = candidate.network
    with torch.no_grad():
        inputs = torch.cat([*parity.network_inputs(files, PIXELS, candidate.mean, candidate.std)])
        maps = network.conv(inputs)
    torch.testing.assert_close(network.norm.running_mean, maps.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.norm.running_var, maps.var((0, 2, 3)), atol=1e-2, rtol=0.05)
    assert not any(module.training for module in network.modules())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fusion.estimate_batch_statistics(candidate)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_last_batch_of_one_picture_is_left_out(tmp_path):
    files = write_pictures(tmp_path / "train", parity.REFERENCE_BATCH + 1)
    candidate = make_candidate(tmp_path, training_files=files)
    fusion.estimate_batch_statistics(candidate)
    assert candidate.network.norm.num_batches_tracked == 1


def test_without_training_pictures_batch_statistics_cannot_be_measured(tmp_path):
    with pytest.raises(ExportError, match="no training pictures"):
        fusion.estimate_batch_statistics(make_candidate(tmp_path))
    fusion.estimate_batch_statistics(make_candidate(tmp_path, network=torch.nn.Linear(2, 3)))  # has none


def test_counters_are_not_averaged():
    states = [{"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([2.0]), "n": torch.tensor(4)}]
    average = fusion.average(states)
    assert average["w"].item() == 1.5
    assert average["n"].item() == 3
