import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from taxon.training.loop import optim

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
TARGETS = torch.tensor([0, 1])


def loss(kind: str, smoothing: float = 0.0, weights: torch.Tensor | None = None, task: str = "single_label"):
    return optim.loss_function(kind, task=task, smoothing=smoothing, class_weights=weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    expected = functional.cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing)
    torch.testing.assert_close(loss("cross_entropy", smoothing)(LOGITS, TARGETS), expected)


def test_soft_targets_give_what_hard_ones_give():
    soft = functional.one_hot(TARGETS, 3).float()
    for kind in ("cross_entropy", "mse", "bce"):
        torch.testing.assert_close(loss(kind)(LOGITS, soft), loss(kind)(LOGITS, TARGETS))


def test_bce_is_torchs():
    soft = functional.one_hot(TARGETS, 3).float()
    expected = functional.binary_cross_entropy_with_logits(LOGITS, soft)
    torch.testing.assert_close(loss("auto", task="multi_label")(LOGITS, soft), expected)


def test_mse_is_on_probabilities():
    expected = (LOGITS.softmax(1) - functional.one_hot(TARGETS, 3)).square().sum(1).mean()
    torch.testing.assert_close(loss("mse")(LOGITS, TARGETS), expected)


def test_class_weights_have_mean_one_over_the_samples():
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    weights = optim.class_weights(targets, 3)
    assert float(weights[targets].mean()) == pytest.approx(1.0)
    assert float(weights[2] / weights[0]) == pytest.approx(90.0)


def test_weighted_shares_of_a_batch_add_up_to_the_whole():
    """What makes several devices and accumulation equal to one batch."""
    weighted = loss("cross_entropy", weights=torch.tensor([0.2, 3.0, 1.0]))
    parts = [weighted(LOGITS[n : n + 1], TARGETS[n : n + 1]) for n in range(2)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, weighted(LOGITS, TARGETS))


def factors(schedule: str, warmup: int = 0) -> list[float]:
    return [optim.lr_factor(n, 10, warmup_steps=warmup, schedule=schedule, step_length=4) for n in range(10)]


def test_schedules():
    assert factors("constant") == [1.0] * 10
    assert factors("step") == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 2)
    assert factors("linear")[5] == pytest.approx(0.5)
    assert factors("cosine")[5] == pytest.approx(0.5)
    assert factors("cosine") == sorted(factors("cosine"), reverse=True)


def test_warm_up_rises_to_the_peak():
    assert factors("constant", warmup=4)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_the_rate_falls_from_stage_to_stage_and_vectors_are_not_decayed():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parts = {"0": [network[0]], "1": [network[1]]}
    groups = optim.parameter_groups(parts, network, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    found = {(group["lr"], group["weight_decay"]) for group in groups}
    assert found == {(0.5, 0.1), (0.5, 0.0), (1.0, 0.1), (1.0, 0.0)}


def test_biases_of_normalisation_alone_take_the_factor():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    groups = optim.parameter_groups(
        {"all": [network]}, network, lr=1.0, weight_decay=0.1, layer_decay=1.0, norm_bias_lr=64.0
    )
    (fast,) = [group["params"] for group in groups if group["lr"] == 64.0]
    assert [id(parameter) for parameter in fast] == [id(network[1].bias)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_frozen_parameters_are_in_no_group():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    parts = {"0": [network[0]], "1": [network[1]]}
    groups = optim.parameter_groups(parts, network, lr=1.0, weight_decay=0.1, layer_decay=1.0)
    assert sum(len(group["params"]) for group in groups) == 2


def update_of(network: nn.Module, **options: object) -> optim.Update:
    groups = optim.parameter_groups({"all": [network]}, network, lr=1.0, weight_decay=0.0, layer_decay=1.0)
    settings = {"average": None, "l1": 0.0, "clip_norm": None, **options}
    return optim.Update(optim.optimizer("sgd", groups, 0.0), torch.amp.GradScaler("cpu", enabled=False), **settings)


def test_l1_pulls_weights_to_zero():
    network = nn.Linear(2, 1, bias=False)
    network.weight.data = torch.tensor([[2.0, -3.0]])
    update = update_of(network, l1=0.5)
    update.backward((network.weight * 0.0).sum())
    update.apply(network)
    torch.testing.assert_close(network.weight.data, torch.tensor([[1.5, -2.5]]))


def test_gradients_are_clipped_to_their_norm():
    network = nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    update = update_of(network, clip_norm=1.0)
    update.backward((network.weight * torch.tensor([[30.0, 40.0]])).sum())
    update.apply(network)
    torch.testing.assert_close(before - network.weight.detach(), torch.tensor([[0.6, 0.8]]), rtol=1e-4, atol=1e-5)


def test_the_average_follows_slowly_and_is_only_lent():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = optim.running_average(network, 0.9)
    update = update_of(network, average=average)
    network.weight.data.fill_(1.0)
    for _ in range(3):
        average.update_parameters(network)
    by_hand = 1.0 - (2 / 11) * (3 / 12) * (4 / 13)  # what is left of the zero it began with, see its docstring
    assert float(average.module.weight.detach()) == pytest.approx(by_hand)
    with update.averaged(network):
        assert float(network.weight.detach()) < 1.0
    assert float(network.weight.detach()) == 1.0


def test_default_rates_are_lower_for_trained_networks():
    assert optim.default_lr("adamw", "full") < optim.default_lr("adamw", "scratch")
    assert math.isclose(optim.default_lr("adam", "full"), optim.default_lr("adamw", "full"))
