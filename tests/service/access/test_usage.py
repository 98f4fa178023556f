"""How much a caller may do, by a clock that is given."""

from datetime import UTC, datetime

import pytest

from taxon.service.access.callers import Caller
from taxon.service.access.usage import CallerLimits, Usage
from taxon.service.errors import CallerLimitError
from taxon.service.scheduling.board import Board

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def caller(**limits):
    return Caller(name="a", groups=["classify"], identity="dns:a", created=NOW, **limits)


def usage_of(one, limits=CallerLimits(), board=None, front=0, now=0.0):
    return Usage(one, limits, board or Board(1), front, 7, now)


def taken(usage, now, count):
    """How many of so many calls may come, and the wait that the last one is told."""
    for number in range(count):
        try:
            usage.take(now)
        except CallerLimitError as error:
            return number, error.retry_s
    return count, 0.0


def test_as_many_as_a_second_holds_may_come_at_once_and_no_more_on_average():
    usage = usage_of(caller(max_calls_per_second=4))
    assert taken(usage, 100.0, 9) == (4, 0.25)
    assert taken(usage, 100.125, 1) == (0, 0.125)
    assert taken(usage, 100.25, 2) == (1, 0.25)
    assert sum(taken(usage, 101 + step / 10, 9)[0] for step in range(100)) in range(39, 45)
    assert taken(usage, 1e9, 99)[0] == 4  # nothing is saved up


def test_less_than_one_a_second():
    usage = usage_of(caller(max_calls_per_second=0.1))
    assert taken(usage, 0.0, 2) == (1, 10.0)
    assert taken(usage, 9.0, 1)[1] == pytest.approx(1.0)
    assert taken(usage, 10.01, 2)[0] == 1


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away():
    usage = usage_of(caller(max_calls_per_second=2))
    assert taken(usage, 100.0, 5)[0] == 2
    assert taken(usage, 99.0, 5)[0] == 0


def test_no_limit_is_no_limit():
    assert taken(usage_of(caller()), 0.0, 10_000)[0] == 10_000


def test_the_file_wins_over_what_is_said_for_all():
    general = CallerLimits(max_concurrent_calls=3, max_calls_per_second=5)
    usage = usage_of(caller(), general)
    assert (usage.max_concurrent_calls, usage.max_per_second) == (3, 5)
    usage.allow(caller(max_concurrent_calls=8, max_calls_per_second=9), general)
    assert (usage.max_concurrent_calls, usage.max_per_second) == (8, 9)


def test_room_is_for_so_many():
    usage = usage_of(caller(max_concurrent_calls=2))
    with usage.call():
        usage.take(0.0)
        with usage.call(), pytest.raises(CallerLimitError) as failure:
            usage.take(0.0)
        usage.take(0.0)
    assert failure.value.facts == {"maxConcurrentCalls": "2"}


def test_all_fronts_count_together():
    board, one = Board(3), caller(max_concurrent_calls=2)
    first, second, third = (usage_of(one, board=board, front=front) for front in range(3))
    with first.call(), second.call():
        for usage in (first, second, third):
            with pytest.raises(CallerLimitError):
                usage.take(0.0)
        board.forget(1)  # that front has died
        third.take(0.0)

    board, one = Board(3), caller(max_calls_per_second=6)
    fronts = [usage_of(one, board=board, front=front, now=100.0) for front in range(3)]
    assert sum(taken(front, 100.0, 9)[0] for front in fronts) == 6
    assert [taken(front, 100.5, 2)[0] for front in fronts] == [2, 1, 0]
    assert sum(taken(fronts[step % 2], 101 + step / 60, 1)[0] for step in range(6000)) in range(597, 610)
    # Who comes to another front owes nothing for what it did elsewhere: the calls of half a second, and a rest.
    assert taken(fronts[2], 201.5, 9)[0] in (3, 4)
