"""Weights that are right in evaluation mode and wrong in training mode are told from those that are not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from taxon.training.loop import batch_statistics
from taxon.training.loop.batch_statistics import SAMPLES, Fit, fit
from taxon.training.loop.batches import LabelledArrays

CLASSES = 4


def one_hot_rows(per_class: int = 20, classes: int = CLASSES) -> LabelledArrays:
    """10 where the class is, and a little noise."""
    targets = torch.arange(per_class * classes) % classes
    noise = np.random.default_rng(0).normal(0, 0.1, (len(targets), classes)).astype(np.float32)
    return LabelledArrays(10 * nn.functional.one_hot(targets, classes).numpy().astype(np.float32) + noise, targets)


def thresholds(level: float, mean: float, var: float) -> nn.Module:
    """Lets pass what is over `level` behind batch normalisation with the given statistics."""
    network = nn.Sequential(
        nn.BatchNorm1d(CLASSES), nn.Linear(CLASSES, CLASSES), nn.ReLU(), nn.Dropout(0.9), nn.Linear(CLASSES, CLASSES)
    )
    with torch.no_grad():
        network[0].running_mean.fill_(mean)
        network[0].running_var.fill_(var)
        network[1].weight.copy_(torch.eye(CLASSES))
        network[1].bias.fill_(-level)
    return network.train()


FITTING = {"level": 1.0, "mean": 2.5, "var": 18.75}
"""Of the rows themselves."""
MERGED = {"level": 5.0, "mean": 0.0, "var": 1.0}
"""As if batch normalisation had been merged into what is behind it: the same answers in evaluation mode."""
UNTRUE = {"level": 1.0, "mean": 100.0, "var": 1.0}
"""Nothing passes in evaluation mode; in training mode everything is right."""


def found(network: nn.Module, arrays: LabelledArrays | None = None, part: int = 32) -> Fit | None:
    return fit(network, "4", arrays or one_hot_rows(), lambda inputs: inputs, part)


def test_statistics_of_the_data_fit():
    answer = found(thresholds(**FITTING))
    assert (answer.samples, answer.in_evaluation, answer.in_training, answer.breaks) == (64, 1.0, 1.0, False)
    assert answer.chance == 1 / CLASSES


def test_merged_statistics_break_in_training_mode():
    answer = found(thresholds(**MERGED))
    assert answer.in_evaluation == 1.0
    assert answer.in_training == pytest.approx(answer.chance, abs=0.15)
    assert answer.breaks


def test_weights_that_know_nothing_in_evaluation_mode_have_nothing_to_keep():
    answer = found(thresholds(**UNTRUE))
    assert answer.in_evaluation < 0.5
    assert not answer.breaks


def test_the_network_is_left_as_it_was():
    network = thresholds(**MERGED)
    network[3].eval()
    before = copy.deepcopy(network.state_dict())
    found(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert [module.training for module in network] == [True, True, True, False, True]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_statistics_that_stay_are_not_asked_about():
    network = thresholds(**MERGED)
    network[0].eval()
    assert found(network) is None
    assert found(nn.Sequential(*[nn.Identity()] * 4, nn.Linear(4, 4)).train()) is None


def test_one_sample_of_a_class_has_no_others():
    """It counts as wrong in both modes; what is left decides."""
    rows = one_hot_rows(8)
    first = torch.cat([torch.arange(CLASSES), torch.tensor([5, 9])])
    assert found(thresholds(**FITTING), LabelledArrays(rows.inputs[first.numpy()], rows.targets[first])).samples == 6


def test_small_parts_are_measured_as_they_train():
    """Two samples of the same class have no spread that tells it."""
    fitting = thresholds(**FITTING)
    assert found(fitting, part=2).in_training < found(fitting, part=32).in_training


def test_several_labels_divide_the_samples_by_one_of_them():
    rows = one_hot_rows()
    labels = nn.functional.one_hot(rows.targets, CLASSES).float()
    both = torch.stack([labels[:, 0], labels[:, 0] + labels[:, 1], torch.ones(len(labels))], dim=1)
    answer = found(thresholds(**MERGED), LabelledArrays(rows.inputs, both))
    assert answer.samples == SAMPLES
    assert answer.chance == 1 / 2
    assert answer.breaks


@pytest.mark.parametrize(("per_class", "classes", "samples"), [(2, 4, 8), (5, 100, 40), (1000, 3, 63)])
def test_few_of_each_of_few_classes_are_asked(per_class, classes, samples):
    targets = torch.arange(classes).repeat(per_class)
    chosen, chosen_classes = batch_statistics._some(targets)
    assert len(chosen) == len(set(chosen.tolist())) == samples
    assert torch.equal(targets[chosen].unique(return_inverse=True)[1], chosen_classes)
    assert len(set(torch.bincount(chosen_classes).tolist())) == 1


def test_the_warning_says_what_was_seen_and_what_to_do():
    warning = Fit(64, 0.5, 0.97, 0.55).warning
    assert "right on 55% of 64 training samples" in warning
    assert "97% with the statistics that came with the weights" in warning
    assert "--freeze-bn" in warning
    assert "--mode head" in warning


@pytest.mark.parametrize(("in_training", "breaks"), [(0.98, False), (0.83, False), (0.80, True), (0.0, True)])
def test_a_third_of_the_lead_over_chance_may_be_lost(in_training, breaks):
    assert Fit(64, 0.5, 0.98, in_training).breaks == breaks
