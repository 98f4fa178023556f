"""What the executor is handed for a caller's features."""

import numpy as np
import pytest

from taxon.service.errors import FieldInvalidError
from taxon.service.models.model import model_of
from taxon.service.pipeline import checked
from taxon.service.runtime.bundle_proof import describe
from taxon.service.runtime.device import CPU
from taxon.service.workers.worker_protocol import Loaded
from tests.fakes import FEATURE_COUNT, toy_bundle


@pytest.fixture
def model(tmp_path):
    manifest = toy_bundle(tmp_path, features=True).manifest
    return model_of(Loaded(1, "", describe(manifest, "fp32", CPU, [1], 8), manifest))


def test_numbers_become_what_the_graph_takes(model):
    array = checked([1, 2.5, -3, 1e30], model)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.float32([1, 2.5, -3, 1e30]))


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * (FEATURE_COUNT + 1)])
def test_another_number_of_values_is_refused(model, values):
    with pytest.raises(FieldInvalidError, match=f"4 values are needed, not {len(values)}") as failure:
        checked(values, model)
    assert failure.value.field == "features.values"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 3])
def test_values_that_are_not_finite_are_refused_by_their_position(model, wrong, position):
    values = [0.0] * FEATURE_COUNT
    values[position] = wrong
    with pytest.raises(FieldInvalidError, match=rf"number {position} \(from 0\) is not"):
        checked(values, model)
