"""The thread that writes: what nobody waits for gives way, what somebody waits for does not."""

import asyncio
import threading
import time

import pytest

from taxon.feedback.errors import StoreError, StoreFullError
from taxon.feedback.store import Store
from taxon.service.errors import QueueFullError
from taxon.service.feedback import writer as module
from taxon.service.feedback.writer import MOST_CAPTURED, Writer
from tests.taxon.feedback.entries import answer, entry
from tests.waiting import until


class SlowStore(Store):
    """Waits before each write."""

    def __init__(self, folder, gate):
        super().__init__(folder)
        self._gate = gate
        self.batches = []

    def add(self, entries):
        self.batches.append(entries)
        assert self._gate.wait(10)
        return super().add(entries)


@pytest.fixture
def gate():
    opened = threading.Event()
    opened.set()
    yield opened
    opened.set()


@pytest.fixture
async def writer(tmp_path, gate):
    counted = []
    made = Writer(lambda: SlowStore(tmp_path / "store", gate), lambda: made.busy, counted.append)
    made.busy, made.counted = False, counted
    yield made
    gate.set()
    await made.close()


async def test_feedback_is_kept_when_it_returns(writer, tmp_path):
    assert await writer.add(entry(0)) == "kept"
    assert await writer.answer("id-0") == answer(0)
    assert await writer.answer("id-1") is None


async def test_captures_are_bounded_and_feedback_goes_first(writer, gate, tmp_path):
    gate.clear()
    writer.capture(entry(0, who=None))
    await until(lambda: not writer._captured)  # the thread has it, and waits for its disk
    for _ in range(MOST_CAPTURED + 3):
        writer.capture(entry(1, who=None))
    assert writer.counted == ["shed"] * 3
    waiting = asyncio.create_task(writer.add(entry(2)))
    await asyncio.sleep(0)
    gate.set()
    await waiting
    assert writer._store.batches[1][0].said  # what somebody waits for does not wait for the others
    await until(lambda: len(writer.counted) == MOST_CAPTURED + 4)
    assert writer.counted.count("kept") == 2
    assert writer.counted.count("known") == MOST_CAPTURED - 1


async def test_bytes_that_wait_are_bounded_too(writer, gate, monkeypatch):
    monkeypatch.setattr(module, "MOST_CAPTURED_BYTES", 2 * len(entry(1).picture))
    gate.clear()
    writer.capture(entry(0, who=None))
    await until(lambda: not writer._captured)
    for _ in range(3):
        writer.capture(entry(1, who=None))
    assert writer.counted == ["shed"]


async def test_while_calls_wait_captures_take_a_share_of_the_time(writer):
    """Whatever one has cost, so many times as long nothing more is captured; an idle server captures everything."""
    writer.busy = True
    writer.capture(entry(0, who=None))
    await until(lambda: writer.counted == ["kept"])
    assert writer._rests_until > time.monotonic()
    writer.capture(entry(1, who=None))
    assert writer.counted == ["kept", "shed"]
    writer.busy = False
    writer.capture(entry(1, who=None))
    await until(lambda: len(writer.counted) == 3)
    writer.busy, writer._rests_until = True, 0.0
    writer.capture(entry(2, who=None))
    await until(lambda: writer.counted == ["kept", "shed", "kept", "kept"])


async def test_too_much_feedback_is_refused(writer, gate, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    gate.clear()
    first = asyncio.create_task(writer.add(entry(0)))
    await asyncio.sleep(0)
    await until(lambda: not writer._asked)  # the thread has it, and waits for its disk
    others = [asyncio.create_task(writer.add(entry(number))) for number in (1, 2)]
    await until(lambda: len(writer._asked) >= 2)
    with pytest.raises(QueueFullError):
        await writer.add(entry(3))
    gate.set()
    assert await asyncio.gather(first, *others) == ["kept"] * 3


async def test_what_waits_is_written_before_the_end(tmp_path, gate):
    counted = []
    writer = Writer(lambda: SlowStore(tmp_path / "store", gate), lambda: False, counted.append)
    gate.clear()
    for number in range(5):
        writer.capture(entry(number, who=None))
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    gate.set()
    await closing
    await writer.close()  # may be called again
    store = Store(tmp_path / "store")
    assert store.figures()["pictures"] == 5
    store.close()


async def test_a_store_that_comes_back_is_used_again(tmp_path):
    broken, counted = [True], []

    def open_store():
        if broken:
            raise StoreError("away")
        return Store(tmp_path / "store")

    writer = Writer(open_store, lambda: False, counted.append)
    with pytest.raises(StoreError, match="away"):
        await writer.add(entry(0))
    writer.capture(entry(1, who=None))
    await until(lambda: counted == ["failed"])
    broken.clear()
    assert await writer.add(entry(0)) == "kept"
    await writer.close()


async def test_a_full_store_is_told_to_whom_it_concerns(tmp_path, monkeypatch):
    def add(self, entries):
        raise StoreFullError("full")

    monkeypatch.setattr(Store, "add", add)
    writer = Writer(lambda: Store(tmp_path / "store"), lambda: False, lambda _: None)
    asked = [writer.add(entry(0)), writer.answer("id-0")]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(outcomes[0], StoreFullError)
    await writer.close()
