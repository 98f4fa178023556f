import asyncio
import threading
import time

import pytest

from taxon.service import threads
from taxon.service.errors import StartError


def none_left(self):
    raise RuntimeError("can't start new thread")


async def test_what_blocks_needs_no_new_thread(monkeypatch):
    threads.begin()
    began = time.monotonic()
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", none_left)
        waits = [asyncio.to_thread(time.sleep, 0.05) for _ in range(2 * threads.THREAD_COUNT)]
        await asyncio.gather(*waits)
    assert time.monotonic() - began < 0.05 * threads.THREAD_COUNT  # not one after the other


async def test_a_start_without_threads_says_so_and_waits_for_nobody(monkeypatch):
    start, begun = threading.Thread.start, []

    def two(self):
        if len(begun) == 2:
            none_left(self)
        begun.append(self)
        start(self)

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", two)
        with pytest.raises(StartError, match="no more threads"):
            threads.begin()
