"""Scores → `value:index:label`, as Triton's clients parse it."""

import numpy as np
import pytest

from taxon.service.errors import FieldInvalidError
from taxon.service.open_inference.top_classes import MAX_ELEMENTS, classified


@pytest.mark.parametrize(
    ("values", "count", "labels", "shape", "elements"),
    [
        ([[0.25, 0.5, 0.25]], 2, ["a", "b", "c"], (1, 2), [b"0.500000:1:b", b"0.250000:0:a"]),
        ([[0.25, 0.75]], 9, ["a"], (1, 2), [b"0.750000:1", b"0.250000:0:a"]),
        ([[1.0, 0.0], [0.0, 1.0]], 1, ["x:y", "é"], (2, 1), [b"1.000000:0:x:y", "1.000000:1:é".encode()]),
        (np.array([[3, 250, 3]], np.uint8), 3, [], (1, 3), [b"250:1", b"3:0", b"3:2"]),
        (np.array([[-5, -(2**63)]], np.int64), 2, [], (1, 2), [b"-5:0", b"-9223372036854775808:1"]),
        ([[np.nan, 1.0]], 1, [], (1, 1), [b"1.000000:1"]),
        ([[[0.1, 0.2], [0.3, 0.4]]], 1, [], (1, 1), [b"0.400000:3"]),
    ],
)
def test_best_classes_first(values, count, labels, shape, elements):
    array = values if isinstance(values, np.ndarray) else np.array(values, np.float32)
    assert classified("outputs[0]", array, count, labels) == (shape, elements)


def test_refuses_what_has_no_order():
    with pytest.raises(FieldInvalidError):
        classified("outputs[0]", np.array([[True]]), 1, [])


def test_refuses_over_a_million():
    with pytest.raises(FieldInvalidError, match=str(MAX_ELEMENTS)):
        classified("outputs[0]", np.zeros((2, MAX_ELEMENTS), np.float32), MAX_ELEMENTS, [])
