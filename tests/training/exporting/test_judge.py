"""The judge as layers: what reaches the head, and what is said of it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from taxon.training.exporting.familiarity import centres
from taxon.training.exporting.judge import Judged, NoFeaturesError, Watched
from tests.training.toy_classifier import AskedTwice, ToyNetwork

PICTURES = torch.rand(5, 3, 10, 10, generator=torch.Generator().manual_seed(0))


# What reaches the head


def test_features_are_what_the_head_turns_into_logits():
    network = ToyNetwork()
    logits, features = Watched(network, "fc")(PICTURES)
    torch.testing.assert_close(network.fc(features), logits)
    torch.testing.assert_close(logits, network(PICTURES))
    assert not network.fc._forward_pre_hooks


class WithMaps(nn.Module):
    """As SqueezeNet: its last layer is a convolution."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 4, 1)

    def forward(self, pictures):
        return self.last(pictures).mean(dim=(2, 3))


def test_maps_are_averaged_over_their_places():
    _, features = Watched(WithMaps(), "last")(PICTURES)
    torch.testing.assert_close(features, PICTURES.mean(dim=(2, 3)))


def test_a_head_that_is_asked_twice_has_no_features():
    with pytest.raises(NoFeaturesError, match="its last layer fc does not take one vector"):
        Watched(AskedTwice(), "fc")(PICTURES)


# What the judge says


def test_familiarity_is_the_cosine_with_the_nearest():
    bank = functional.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)))
    network = ToyNetwork()
    logits, judged = Judged(Watched(network, "fc"), bank.numpy())(PICTURES)
    _, features = Watched(network, "fc")(PICTURES)
    cosines = functional.cosine_similarity(features[:, None], bank, dim=2)
    torch.testing.assert_close(judged[:, 0], cosines.amax(dim=1).clamp(0, 1))
    torch.testing.assert_close(logits, network(PICTURES))


def test_a_picture_without_features_is_like_none():
    """All zero behind a ReLU: a bank and a question of length 0 are no division by 0."""
    bank = centres(np.zeros((3, 8), np.float32), 2)
    assert np.isfinite(bank).all()
    network = ToyNetwork()
    network.norm.bias.data.fill_(-1e6)
    _, judged = Judged(Watched(network, "fc"), bank)(PICTURES)
    assert judged.tolist() == [[0.0]] * 5
