"""When strangers are refused."""

import pytest

from taxon.service.access.strangers import APART_S, MOST_WAIT_S, Turns


def test_one_alone_waits_for_nobody():
    turns = Turns()
    assert [turns.take(now) for now in (5.0, 5.0 + APART_S, 6.0)] == [0.0, 0.0, 0.0]


def test_a_crowd_is_spread_and_what_comes_beyond_it_does_not_wait():
    turns = Turns()
    waits = [turns.take(5.0) for _ in range(3000)]
    spread = round(MOST_WAIT_S / APART_S)
    assert waits[:spread] == pytest.approx([number * APART_S for number in range(spread)])
    assert waits[spread + 2 :] == [0.0] * (3000 - spread - 2)
    assert turns.take(5.0 + MOST_WAIT_S / 2) == pytest.approx(MOST_WAIT_S / 2, abs=3 * APART_S)
    assert turns.take(60.0) == 0.0
