import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxon.service.scheduling.arena import KEPT_BYTES, MARGIN_BYTES, Arena, ArenaView

PAGE = 4096


@pytest.fixture
def arena():
    made = Arena(4 * PAGE)
    yield made
    made.close()


def view_of(arena):
    return ArenaView(os.dup(arena.descriptor))


def test_a_view_sees_what_was_written(arena):
    view = view_of(arena)
    first, second = arena.allocate(5), arena.allocate(6)
    arena.write(first, b"first")
    arena.write(second, memoryview(b"second"))
    assert bytes(view.input(first, 5)) == b"first"
    assert bytes(view.input(second, 6)) == b"second"


def test_what_is_decoded_in_place_is_seen_by_all_who_map_it(arena):
    decoder, runner = view_of(arena), view_of(arena)
    offset = arena.allocate(8)
    arena.write(offset, b"encoded")
    decoder.input(offset, 8)[:] = b"an array"
    assert bytes(runner.input(offset, 8)) == b"an array"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],  # not contiguous
        np.array(True),
        np.zeros((2, 0), np.float32),
        np.zeros((), [("f0", "<f4", (0,))]),  # as a request's tensors are packed, one of no elements
        np.array((1, [2.0, 3.0]), [("f0", "<i8"), ("f1", "<f4", (2,))]),
    ],
)
def test_arrays_of_every_kind_come_out_as_they_went_in(arena, array):
    offset = arena.allocate(array.nbytes)
    arena.write(offset, array)
    seen = np.ndarray(array.shape, array.dtype, view_of(arena).input(offset, array.nbytes))
    np.testing.assert_array_equal(seen, array)


def test_arrays_lie_as_vector_instructions_like_them(arena):
    for size in (1, 63, 64, 65):
        assert (arena.allocate(size) + MARGIN_BYTES) % 64 == 0


def test_whether_anybody_waits_is_seen_by_whoever_reads(arena):
    view = view_of(arena)
    leaving, staying = arena.allocate(10), arena.allocate(10)
    arena.write(leaving, b"0123456789")
    arena.abandon(leaving)
    assert view.gone(leaving)
    assert not view.gone(staying)
    assert bytes(view.input(leaving, 10)) == b"0123456789"
    arena.free(leaving)
    assert not view.gone(arena.allocate(10))  # the next one in its place is waited for


def test_no_room_is_told_and_is_no_error(arena):
    most = arena.size - MARGIN_BYTES
    assert arena.allocate(most + 1) is None
    offset = arena.allocate(most)
    assert offset == 0
    assert arena.allocate(0) is None
    arena.free(offset)
    assert arena.allocate(most) == 0


def test_lowest_addresses_first(arena):
    offsets = [arena.allocate(100) for _ in range(4)]
    arena.free(offsets[1])
    assert arena.allocate(100) == offsets[1]


def test_blocks_are_counted(arena):
    offset = arena.allocate(1)
    assert arena.held_count == 1
    arena.free(offset)
    assert arena.held_count == 0
    with pytest.raises(KeyError):
        arena.free(offset)


def resident_bytes(arena):
    return os.fstat(arena.descriptor).st_blocks * 512


def test_memory_is_taken_when_it_is_written_and_given_back_when_nothing_is_held():
    arena = Arena(256 * 2**20)
    assert resident_bytes(arena) == 0
    offset, other = arena.allocate(KEPT_BYTES + 1), arena.allocate(10)
    arena.write(offset, bytes(KEPT_BYTES + 1))
    assert resident_bytes(arena) > KEPT_BYTES
    arena.free(offset)
    assert resident_bytes(arena) > KEPT_BYTES  # of what somebody still holds nothing is taken away
    arena.free(other)
    assert resident_bytes(arena) == 0
    offset = arena.allocate(10)
    arena.write(offset, b"afterwards")
    assert bytes(view_of(arena).input(offset, 10)) == b"afterwards"
    arena.close()


def test_a_little_memory_is_kept():
    arena = Arena(256 * 2**20)
    offset = arena.allocate(2**20)
    arena.write(offset, bytes(2**20))
    arena.free(offset)
    assert resident_bytes(arena) >= 2**20
    arena.close()


def test_memory_that_another_process_made_is_taken_over(arena):
    again = Arena(0, os.dup(arena.descriptor))
    assert again.size == arena.size
    offset = again.allocate(3)
    again.write(offset, b"new")
    assert bytes(view_of(arena).input(offset, 3)) == b"new"
    again.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), st.integers(0, 2 * PAGE)),
        st.tuples(st.just("free"), st.integers(0, 100)),
        st.tuples(st.just("abandon"), st.integers(0, 100)),
    ),
    max_size=60,
)


def length(byte_count):
    """Of a block: whole multiples of the margin."""
    return -(-(byte_count + MARGIN_BYTES) // MARGIN_BYTES) * MARGIN_BYTES


def largest_gap(arena, blocks):
    at, largest = 0, 0
    for offset, (content, _) in sorted(blocks.items()):
        largest, at = max(largest, offset - at), offset + length(len(content))
    return max(largest, arena.size - at)


@given(STEPS)
def test_blocks_never_overlap_and_gaps_grow_together(steps):
    arena = Arena(4 * PAGE)
    view = view_of(arena)
    blocks = {}  # offset → what was written, whether it was abandoned
    try:
        for number, (step, size) in enumerate(steps):
            if step == "allocate":
                offset = arena.allocate(size)
                if offset is None:
                    assert largest_gap(arena, blocks) < length(size)
                    continue
                assert offset not in blocks
                content = bytes([number % 251 + 1]) * size
                arena.write(offset, content)
                blocks[offset] = content, False
            elif blocks:
                offset = sorted(blocks)[size % len(blocks)]
                if step == "free":
                    arena.free(offset)
                    del blocks[offset]
                else:
                    arena.abandon(offset)
                    blocks[offset] = blocks[offset][0], True
            for held, (content, abandoned) in blocks.items():
                assert bytes(view.input(held, len(content))) == content
                assert view.gone(held) == abandoned
            assert arena.held_count == len(blocks)
        for offset in blocks:
            arena.free(offset)
        assert arena.allocate(arena.size - MARGIN_BYTES) == 0
    finally:
        arena.close()
