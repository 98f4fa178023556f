import numpy as np
import torch

from taxon.training.loop import order


def test_an_epochs_order_has_every_sample_once_and_is_another_in_each_epoch():
    first, second = (order.permutation(5, epoch, 100) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, order.permutation(5, 0, 100))


def test_the_numbers_are_fixed_for_all_time():
    """A changed constant would silently change every resumed run."""
    assert order.permutation(0, 0, 8).tolist() == [1, 5, 6, 0, 2, 7, 3, 4]
    assert order.step_seed(1, 2, 3, 1) == 7026734951245743896


def test_numbers_are_even_and_independent_over_samples_epochs_seeds_and_purposes():
    samples = np.arange(20_000)
    base = order.uniform(0, 0, samples)
    assert abs(np.histogram(base, bins=10, range=(0, 1))[0] / 2000 - 1).max() < 0.08
    for other in (
        np.roll(base, 1),
        order.uniform(0, 1, samples),
        order.uniform(1, 0, samples),
        order.uniform(0, 0, samples, purpose=1),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.03


def test_balanced_draws_take_classes_equally_often():
    targets = torch.tensor([0] * 900 + [1] * 100)
    drawn = targets[order.of_epoch(0, 0, targets, balanced=True)]
    assert len(drawn) == 1000
    assert 0.45 < float(drawn.float().mean()) < 0.55


def test_steps_and_ranks_draw_differently():
    seeds = {order.step_seed(0, epoch, step, rank) for epoch in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 600
