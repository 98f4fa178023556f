import os

import pytest

from taxon.service.scheduling.board import PLACES, Board


def test_a_new_board_holds_nothing():
    board = Board(3)
    assert board.held_count() == 0
    assert board.predicted_wait_s == 0.0


@pytest.mark.parametrize("front_count", [1, 2, 64])
def test_permits_are_counted_for_each_front_and_together(front_count):
    board = Board(front_count)
    for front in range(front_count):
        board.hold(front, front + 2)
        board.hold(front, -1)
    assert [board.held_of(front) for front in range(front_count)] == list(range(1, front_count + 1))
    assert board.held_count() == front_count * (front_count + 1) // 2
    board.forget(0)
    assert board.held_of(0) == 0
    assert board.held_count() == front_count * (front_count + 1) // 2 - 1


def test_what_one_process_writes_all_that_map_the_board_read():
    board = Board(2)
    mapped = Board(2, os.dup(board.descriptor))
    mapped.hold(1, 5)
    board.hold(0, 2)
    board.predicted_wait_s = 0.25
    assert board.held_count() == mapped.held_count() == 7
    assert mapped.predicted_wait_s == 0.25


@pytest.mark.parametrize("front_count", [1, 3])
def test_calls_are_counted_for_each_caller_at_all_fronts_together(front_count):
    board = Board(front_count)
    mapped = Board(front_count, os.dup(board.descriptor))
    for front in range(front_count):
        for place in (0, PLACES - 1):
            board.begin(front, place, 2)
            mapped.begin(front, place, -1)
            mapped.make(front, place)
    for place, count in ((0, front_count), (1, 0), (PLACES - 1, front_count)):
        assert board.under_way_count(place) == mapped.made_count(place) == count
    board.forget(0)
    assert mapped.under_way_count(0) == front_count - 1
    assert mapped.made_count(0) == front_count
    assert board.held_count() == 0
