import dataclasses

import numpy as np
import pytest
import torch

from taxon.training.participants.averaging import averaged
from taxon.training.participants.contributions import read
from tests.training.participants.contributors import make_base, moved, saved


@pytest.fixture(scope="module")
def base():
    return make_base()


def of_state(base, tmp_path, name, count, changes):
    state = {
        key: changes.get(key, tensor + 0.001 if tensor.is_floating_point() else tensor)
        for key, tensor in base.state.items()
    }
    return read(saved(dataclasses.replace(base, state=state, sample_count=count), tmp_path, name), base)


def test_weights_are_averaged_by_samples(base, tmp_path):
    parts = [read(saved(moved(base, n, count=c), tmp_path, f"{n}.pt"), base) for n, c in ((1, 300), (2, 100))]
    fused = averaged(base, parts)
    for key, tensor in fused.state.items():
        first, second = (part.checkpoint.state[key] for part in parts)
        if tensor.is_floating_point() and "running" not in key:
            torch.testing.assert_close(tensor, 0.75 * first + 0.25 * second)
        assert tensor.dtype == base.state[key].dtype
    assert fused.sample_count == 400


def test_statistics_of_batches_are_those_of_all_samples_together(base, tmp_path):
    """Two participants with values of their own, against the mean and variance of the union."""
    random = np.random.default_rng(0)
    values = [random.normal(0.0, 1.0, 3000), random.normal(4.0, 2.0, 1000)]
    var_key = next(key for key in base.state if key.endswith("running_var"))
    mean_key = var_key.replace("running_var", "running_mean")
    shape = base.state[var_key].shape
    parts = [
        of_state(
            base,
            tmp_path,
            f"{n}.pt",
            len(one),
            {mean_key: torch.full(shape, one.mean()), var_key: torch.full(shape, one.var())},
        )
        for n, one in enumerate(values)
    ]
    fused = averaged(base, parts).state
    union = np.concatenate(values)
    torch.testing.assert_close(fused[mean_key], torch.full(shape, union.mean(), dtype=torch.float32))
    torch.testing.assert_close(fused[var_key], torch.full(shape, union.var(), dtype=torch.float32))


def test_statistics_that_all_have_kept_stay_as_they_are(base, tmp_path):
    parts = [read(saved(moved(base, n), tmp_path, f"{n}.pt"), base) for n in (1, 2, 3)]
    fused = averaged(base, parts).state
    for key in base.state:
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(fused[key], base.state[key])
