import numpy as np
import pytest

from taxon.service.runtime.packing import pack, run_packed, unpack


@pytest.mark.parametrize("batched", [True, False])
def test_several_tensors_travel_as_one_array(batched):
    first, second = np.arange(6).reshape(2, 3), np.array([[0.5], [1.5]], np.float32)
    items = pack([first, second], batched=batched)
    assert len(items) == (2 if batched else 1)

    def swap(tensors):
        assert [one.dtype for one in tensors] == [first.dtype, second.dtype]
        return [tensors[1] * 2, tensors[0]]

    rows = run_packed(swap, np.stack(items), batched=batched)
    outputs = unpack(list(rows), 2, batched=batched)
    np.testing.assert_array_equal(outputs[0], second * 2)
    np.testing.assert_array_equal(outputs[1], first)


def test_tensors_of_no_elements_travel_too():
    (item,) = pack([np.zeros((1, 0), np.float32), np.ones((1, 2), np.int64)], batched=True)
    rows = run_packed(lambda tensors: tensors, np.stack([item]), batched=True)
    empty, full = unpack(list(rows), 2, batched=True)
    assert empty.shape == (1, 0)
    assert full.tolist() == [[1, 1]]


def test_an_output_without_a_row_for_each_input_is_an_error():
    with pytest.raises(ValueError, match="for a batch of 2"):
        run_packed(lambda tensors: [np.zeros(1)], np.stack(pack([np.zeros((2, 1))], batched=True)), batched=True)


def test_rows_of_different_shapes_are_no_tensor():
    rows = [pack([np.zeros((1, length))], batched=True)[0] for length in (1, 2)]
    with pytest.raises(ValueError, match="same shape"):
        unpack(rows, 1, batched=True)
