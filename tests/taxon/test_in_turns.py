"""Many things, some at a time."""

import asyncio
import threading

import pytest

from taxon import in_turns


async def test_no_more_at_once_than_allowed_and_no_item_before_its_turn():
    now, most, taken = 0, 0, 0

    async def work(item):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return item

    def items():
        nonlocal taken
        for item in range(50):
            taken += 1
            yield item

    results = in_turns.awaited(work, items(), 4)
    first = await anext(results)
    assert taken <= 8
    assert sorted([first, *[result async for result in results]]) == list(range(50))
    assert most == 4


async def test_the_first_failure_ends_all():
    ended = []

    async def work(item):
        try:
            if item == 2:
                raise OSError("gone")
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    with pytest.raises(OSError, match="gone"):
        async for _ in in_turns.awaited(work, range(3), 3):
            pass
    assert sorted(ended) == [0, 1, 2]


def test_threads_do_the_same():
    together = threading.Barrier(4, timeout=10)

    def work(item):
        together.wait()
        return item

    assert sorted(in_turns.in_threads(work, range(8), 4)) == list(range(8))

    def fail(item):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(in_turns.in_threads(fail, range(8), 4))
