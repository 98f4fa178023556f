"""One thread of a front that writes into the store, so that no call ever waits for a disk but those that give feedback.

Several at once make one transaction. What nobody waits for comes last, is bounded, and gives way while the server is
busy.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from taxon.feedback.errors import StoreError
from taxon.feedback.records import Answer, Entry
from taxon.service.errors import QueueFullError

if TYPE_CHECKING:
    from taxon.feedback.store import AddedOrNot, Store

MOST_AT_ONCE = 32
MOST_WAITING = 256
"""Feedback that waits for the disk; one more is refused."""
MOST_CAPTURED = 64
MOST_CAPTURED_BYTES = 32 * 2**20
"""Pictures that wait for the disk and for nobody."""
BUSY_SHARE = 0.02
"""While calls wait for workers, captures take at most so much of one core's time."""
RETRY_S = 1.0

log = structlog.get_logger(__name__)


class _Asked(NamedTuple):
    entry: Entry | str
    """To be kept; or an id whose answer is to be found."""
    future: asyncio.Future[Any]


class Writer:
    """The thread and what waits for it. All methods must be called on the event loop."""

    def __init__(
        self, open_store: "Callable[[], Store]", is_busy: Callable[[], bool], count: Callable[[str], None]
    ) -> None:
        """Writes nothing yet.

        Args:
            open_store: Called in the thread.
            is_busy: Whether calls wait for workers.
            count: Told what became of a capture: kept, known, failed, shed.
        """
        self._open_store = open_store
        self._is_busy = is_busy
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._asked: deque[_Asked] = deque()
        self._captured: deque[Entry] = deque()
        self._captured_bytes = 0
        self._rests_until = 0.0
        self._closing = False
        self._store: Store | None = None
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def capture(self, entry: Entry) -> None:
        """Keeps a picture if that costs nobody anything."""
        byte_count = len(entry.picture or b"")
        with self._changed:
            full = len(self._captured) >= MOST_CAPTURED or self._captured_bytes + byte_count > MOST_CAPTURED_BYTES
            if full or self._closing or (time.monotonic() < self._rests_until and self._is_busy()):
                self._count("shed")
                return
            self._captured.append(entry)
            self._captured_bytes += byte_count
            self._changed.notify()

    async def add(self, entry: Entry) -> "AddedOrNot":
        """Keeps feedback; returns once the disk holds it.

        Raises:
            QueueFullError: Too much waits already.
            StoreError: See `Store.add`.
        """
        added: AddedOrNot = await self._ask(entry)
        return added

    async def answer(self, request_id: str) -> Answer | None:
        """See `Store.answer`.

        Raises:
            QueueFullError: Too much waits already.
            StoreError: The store cannot be used.
        """
        found: Answer | None = await self._ask(request_id)
        return found

    async def close(self) -> None:
        """Writes what waits, then ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def _ask(self, entry: Entry | str) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            count = len(self._asked)
            if count >= MOST_WAITING or self._closing:
                raise QueueFullError(
                    f"{count} messages wait to be kept", RETRY_S, queued_count=count, max_queued_count=MOST_WAITING
                )
            self._asked.append(_Asked(entry, future))
            self._changed.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._captured or self._closing)
                asked = [self._asked.popleft() for _ in range(min(len(self._asked), MOST_AT_ONCE))]
                room = min(len(self._captured), MOST_AT_ONCE - len(asked))
                captured = [self._captured.popleft() for _ in range(room)]
                self._captured_bytes -= sum(len(entry.picture or b"") for entry in captured)
            if not asked and not captured:
                break
            began_s = time.thread_time()
            outcomes = self._write(asked, captured)
            if captured:
                self._rests_until = time.monotonic() + (time.thread_time() - began_s) / BUSY_SHARE
            self._loop.call_soon_threadsafe(self._tell, asked, outcomes, len(captured))
        if self._store:
            self._store.close()

    def _write(self, asked: list[_Asked], captured: list[Entry]) -> list[Any]:
        """What became of each, those that somebody waits for first."""
        entries = [one.entry for one in asked if isinstance(one.entry, Entry)] + captured
        try:
            store = self._store = self._store or self._open_store()
            added = iter(store.add(entries) if entries else ())
            found = [next(added) if isinstance(one.entry, Entry) else store.answer(one.entry) for one in asked]
            return [*found, *added]
        except StoreError as error:
            log.error("feedback cannot be kept", reason=str(error))
            return [error] * (len(asked) + len(captured))
        except Exception as error:
            log.exception("feedback cannot be kept, unforeseen")
            return [error] * (len(asked) + len(captured))

    def _tell(self, asked: list[_Asked], outcomes: list[Any], captured_count: int) -> None:
        for one, outcome in zip(asked, outcomes, strict=False):
            if one.future.done():
                continue
            # What concerns one entry is its outcome; what concerns the store is raised.
            if isinstance(outcome, Exception):
                one.future.set_exception(outcome)
            else:
                one.future.set_result(outcome)
        for outcome in outcomes[len(outcomes) - captured_count :]:
            self._count(outcome if isinstance(outcome, str) else "failed")
