import numpy as np
import pytest
import torch
from torch import nn

from taxon.training.loop.batches import LabelledArrays
from taxon.training.loop.evaluate import Answers, answer, summary
from taxon.training.loop.machine import Machine

SCORES = np.float32([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])


def test_figures_of_one_label_by_hand():
    found = summary(Answers(SCORES, np.int64([0, 1, 1, 1]), 0.5))
    assert found == pytest.approx({"loss": 0.5, "accuracy": 0.75, "macro_f1": (2 / 3 + 0.8) / 2})


def test_figures_of_several_labels_count_wholly_right_answers():
    found = summary(Answers(SCORES, np.int64([[1, 0], [0, 1], [1, 1], [0, 1]]), 0.5))
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1.0 + 0.8) / 2)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_sample_is_asked_once_in_order_in_evaluation_mode(batch_size):
    values = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    arrays = LabelledArrays(values, torch.tensor([0, 1, 0, 1, 0, 1, 0]))
    network = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    found = answer(network, arrays, torch.clone, Machine(torch.device("cpu")), batch_size)
    np.testing.assert_allclose(found.scores, torch.from_numpy(values).softmax(1), rtol=1e-6)
    expected = nn.functional.cross_entropy(torch.from_numpy(values), arrays.targets)
    assert found.loss == pytest.approx(float(expected))
