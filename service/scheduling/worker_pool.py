"""A fixed number of worker processes, whatever happens to each: given work, watched, replaced.

Lives on one event loop. What runs next is `lanes`' decision; what a worker does with it is `worker`'s.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from taxon.service.errors import NotServingError
from taxon.service.runtime.decoding import Array, Encoded
from taxon.service.scheduling.admission import Lane, Lanes, new_entry
from taxon.service.scheduling.batching import Entry, Scored, Taken, late, settle
from taxon.service.scheduling.worker_main import WorkerSettings
from taxon.service.scheduling.worker_process import Process
from taxon.service.scheduling.worker_protocol import Done, Load, Loaded, Run, Unload

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Member:
    """What the crew knows of one process."""

    process: Process
    models: set[tuple[str, int]] = field(default_factory=set)
    """Which it has proved."""
    owed: int = 0
    """Answers that it has not given yet."""
    lane: Lane | None = None
    taken: Taken | None = None
    """What it works on."""
    began_at: float = 0.0
    ends_at: float = 0.0
    """When it should be free, by what its batch should take."""
    watchdog: asyncio.TimerHandle | None = None

    @property
    def free(self) -> bool:
        """Whether it could work at once."""
        return bool(self.models) and not self.owed

    @property
    def has_large_picture(self) -> bool:
        """Whether it works on an input that runs alone."""
        return self.taken is not None and self.taken.batch[0].alone


class Crew:
    """The workers and the lanes that they serve."""

    def __init__(self, settings: WorkerSettings, count: int, max_run_s: float) -> None:
        """Starts the processes. Must be called on the event loop.

        Args:
            settings: Of every worker.
            count: How many.
            max_run_s: A worker that takes longer over one batch is killed and replaced.
        """
        self._settings = settings
        self._max_run_s = max_run_s
        self._loop = asyncio.get_running_loop()
        self._lanes = Lanes()
        self._answers: dict[tuple[str, int], asyncio.Future[Loaded]] = {}
        self._members: dict[int, Member] = {}
        self._pauses = dict.fromkeys(range(count), FIRST_PAUSE_S)
        self._closing = False
        self._finished = asyncio.Event()
        self.ready_count = 0
        """Workers that have a model."""
        self.ready_changed = asyncio.Event()
        """Set at every change of `ready_count`; whoever waits for it clears it."""
        for number in range(count):
            self._start(number)

    async def load(self, name: str, version: int) -> Loaded:
        """Has every worker prove a bundle; returns the first answer. Workers started later prove it too."""
        key = name, version
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._loop.create_future()
            for member in self._members.values():
                self._order(member, Load(name, version))
        return await asyncio.shield(answer)

    def open_lane(self, lane: Lane) -> None:
        """Begins to take inputs for a model that has been loaded."""
        self._lanes.add(lane)

    async def close_lane(self, lane: Lane) -> None:
        """Takes nothing more for a model, waits until its queue is answered, has every worker forget it."""
        lane.closing = True
        while not self._closing and (lane.light or lane.alone or self._runs(lane)):
            self._finished.clear()
            await self._finished.wait()
        self._lanes.remove(lane)
        key = lane.name, lane.version
        self._answers.pop(key, None)
        for member in self._members.values():
            member.models.discard(key)
            member.process.send(Unload(*key))
        self._count()

    def _runs(self, lane: Lane) -> bool:
        return any(member.lane is lane for member in self._members.values())

    async def submit(self, lane: Lane, payload: Array | Encoded, deadline: float, priority: int, alone: bool) -> Scored:
        """Waits for the scores of one input; see `placement.LaneRuns.submit`."""
        entry = new_entry(payload, deadline, priority, alone, time.monotonic())
        self._lanes.admit(lane, entry, self.ready_count, self._busy_s())
        self._dispatch()
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._flag(entry)
            raise

    def predicted_wait_s(self) -> float:
        """How long a new input would wait for a worker."""
        return self._lanes.predicted_s(self.ready_count, self._busy_s())

    def close(self) -> None:
        """Lets every worker end after its batch and waits for it. Blocks; no call may be in flight."""
        self._closing = True
        for member in self._members.values():
            if member.watchdog:
                member.watchdog.cancel()
            member.process.close()
        for member in self._members.values():
            member.process.wait(self._max_run_s)
        self._members.clear()

    def _busy_s(self) -> float:
        """Until the first worker is free, by what its batch should take."""
        now = time.monotonic()
        left = []
        for member in self._members.values():
            if member.free:
                return 0.0
            if member.taken:
                left.append(max(0.0, member.ends_at - now))
        return min(left, default=0.0)

    def _flag(self, entry: Entry) -> None:
        for member in self._members.values():
            if member.taken and entry in member.taken.batch:
                member.process.flags[member.taken.batch.index(entry)] = 1

    def _dispatch(self) -> None:
        free = [member for member in self._members.values() if member.free]
        while free:
            large_count = sum(member.has_large_picture for member in self._members.values())
            chosen = self._lanes.next_batch(self.ready_count, large_count, free[-1].models)
            if chosen is None:
                free.pop()
                continue
            lane, taken = chosen
            if dropped_count := len(taken.expired) + taken.gone_count:
                lane.on_batch(0, dropped_count)
            settle(late(taken.expired, time.monotonic(), lane.costs()))
            if taken.batch:
                self._run(free.pop(), lane, taken)

    def _run(self, member: Member, lane: Lane, taken: Taken) -> None:
        member.lane, member.taken, member.began_at = lane, taken, time.monotonic()
        member.ends_at = member.began_at + lane.expected_s(taken)
        member.owed += 1
        member.watchdog = self._loop.call_later(self._max_run_s, self._kill, member)
        member.process.flags[: len(taken.batch)] = bytes(len(taken.batch))
        payloads = [entry.payload for entry in taken.batch]
        arrays = tuple(payload for payload in payloads if isinstance(payload, np.ndarray))
        encoded = [payload for payload in payloads if isinstance(payload, bytes | memoryview)]
        deadlines = tuple(entry.deadline for entry in taken.batch)
        member.process.send(Run(lane.name, lane.version, taken.bucket, deadlines, arrays), encoded)

    def _finish(self, member: Member, done: Done) -> None:
        lane, taken = member.lane, member.taken
        if lane is None or taken is None:
            raise RuntimeError(f"worker {member.process.number} answered what it was not asked")
        if member.watchdog:
            member.watchdog.cancel()
        member.lane = member.taken = member.watchdog = None
        self._pauses[member.process.number] = FIRST_PAUSE_S
        lane.on_batch(done.run_count, len(taken.batch) - done.run_count)
        if done.run_count:
            lane.learn(taken, done.preprocess_s, done.inference_s)
        settle(
            [
                (entry, scored(entry, outcome, member, done))
                for entry, outcome in zip(taken.batch, done.outcomes, strict=True)
            ]
        )

    def _start(self, number: int) -> None:
        member = Member(
            Process(
                number,
                self._settings,
                lambda _, message: self._receive(member, message),
                lambda _: self._bury(member),
            )
        )
        self._members[number] = member
        for name, version in self._answers:
            self._order(member, Load(name, version))

    def _order(self, member: Member, load: Load) -> None:
        member.owed += 1
        member.process.send(load)

    def _receive(self, member: Member, message: Any) -> None:
        member.owed -= 1
        if isinstance(message, Done):
            self._finish(member, message)
        else:
            self._take_loaded(member, message)
        self._dispatch()
        self._finished.set()

    def _take_loaded(self, member: Member, loaded: Loaded) -> None:
        key = loaded.name, loaded.version
        answer = self._answers.get(key)
        if answer is None:
            return  # unloaded meanwhile
        if not loaded.refused:
            member.models.add(key)
            self._count()
        elif answer.done():
            log.error("worker refuses what another proved", worker=member.process.number, reason=loaded.refused)
        if not answer.done():
            answer.set_result(loaded)

    def _kill(self, member: Member) -> None:
        log.error("worker hangs, killing it", worker=member.process.number, max_run_s=self._max_run_s)
        member.process.kill()

    def _bury(self, member: Member) -> None:
        """Cleans up after a process that has ended, and starts the next."""
        number = member.process.number
        member.process.close()
        member.process.kill()
        status = member.process.wait(self._max_run_s)  # killed: over at once
        del self._members[number]
        if member.watchdog:
            member.watchdog.cancel()
        if member.taken:
            refuse(member.taken.batch, "the worker that held this call died")
        self._count()
        self._finished.set()
        pause_s = self._pauses[number]
        self._pauses[number] = min(LONGEST_PAUSE_S, pause_s * 2)
        log.error("worker died, starting another", worker=number, status=status, pause_s=pause_s)
        self._loop.call_later(pause_s, self._restart, number)

    def _restart(self, number: int) -> None:
        if not self._closing:
            self._start(number)

    def _count(self) -> None:
        ready_count = sum(bool(member.models) for member in self._members.values())
        if ready_count != self.ready_count:
            self.ready_count = ready_count
            self.ready_changed.set()
        if not ready_count:
            refuse(self._lanes.empty(), "no worker is ready")


def scored(entry: Entry, outcome: Any, member: Member, done: Done) -> Scored | Exception:
    """What one caller is told of a finished batch."""
    if isinstance(outcome, Exception):
        return outcome
    queue_s = member.began_at - entry.queued_at
    return Scored(outcome, queue_s, done.inference_s, done.run_count, done.preprocess_s)


def refuse(entries: Iterable[Entry], reason: str) -> None:
    """Tells callers that this server cannot answer them now."""
    settle([(entry, NotServingError(reason)) for entry in entries])
