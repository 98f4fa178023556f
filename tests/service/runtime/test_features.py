import numpy as np
import pytest

from taxon.service.errors import FieldInvalidError
from taxon.service.runtime.features import to_features
from tests.fakes import FEATURE_COUNT, toy_bundle


@pytest.fixture
def manifest(tmp_path):
    return toy_bundle(tmp_path, features=True).manifest


def test_numbers_become_what_the_graph_takes(manifest):
    array = to_features([1, 2.5, -3, 1e30], manifest)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.float32([1, 2.5, -3, 1e30]))


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * (FEATURE_COUNT + 1)])
def test_another_number_of_values_is_refused(manifest, values):
    with pytest.raises(FieldInvalidError, match=f"4 values are needed, not {len(values)}") as failure:
        to_features(values, manifest)
    assert failure.value.field == "features.values"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 3])
def test_values_that_are_not_finite_are_refused_by_their_position(manifest, wrong, position):
    values = [0.0] * FEATURE_COUNT
    values[position] = wrong
    with pytest.raises(FieldInvalidError, match=rf"number {position} \(from 0\) is not"):
        to_features(values, manifest)
