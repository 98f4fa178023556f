import copy

import numpy as np
import torch

from taxon.bundle import store
from taxon.training.exporting import bundling, graph, parity, tf32
from tests.training.toy_classifier import make_candidate


def test_ten_bits_of_mantissa_are_left():
    values = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11 + 2**-20, 1 + 2**-12, -3.1415927, 0.0])
    expected = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-10, 1.0, -3.140625, 0.0])
    assert torch.equal(tf32.round_to_tf32(values), expected)


def test_scores_move_a_little_and_the_network_stays_as_it_is(tmp_path):
    candidate = make_candidate(tmp_path)
    before = copy.deepcopy(candidate.network.state_dict())
    logits = parity.reference_logits(
        candidate.network, candidate.files, candidate.pixels, candidate.mean, candidate.std
    )
    moved = tf32.rows(candidate, candidate.files, "single_label", 1.0)
    assert 1e-6 < np.abs(moved - parity.scores_of(logits, "single_label")).max() < 5e-3
    assert all(torch.equal(before[name], value) for name, value in candidate.network.state_dict().items())
    assert not candidate.network.conv._forward_pre_hooks


def test_a_network_that_tf32_moves_little_is_served_with_it(tmp_path):
    bundling.publish(make_candidate(tmp_path), tmp_path / "models", "toy", ladder=graph.LADDER[:1])
    assert store.read(tmp_path / "models", "toy", 1).manifest.variants[0].provider_options == {}


def test_a_network_that_tf32_would_move_too_far_is_served_without_it(tmp_path):
    candidate = make_candidate(tmp_path)
    logits = parity.reference_logits(
        candidate.network, candidate.files, candidate.pixels, candidate.mean, candidate.std
    )
    reference = parity.scores_of(logits, "single_label")
    tight = dict.fromkeys(range(len(candidate.files)), 1e-5)
    assert tf32.provider_options(candidate, reference, tight, 1.0) == {"CUDAExecutionProvider": {"use_tf32": "0"}}
