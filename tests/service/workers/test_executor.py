"""Inputs on their way into shared memory: when they are copied, how many come in, when their blocks are free again."""

import asyncio
import contextlib
import gc
import weakref

import numpy as np
import pytest

from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.service.errors import InferenceFailedError, NotServingError, QueueFullError
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.memory import Memory
from taxon.service.workers.executor import Executor
from tests.fakes import picture

SCORED = Scored(np.ones(3, np.float32), 0.0, 0.0, 0.0, 1)
SOON = 1e12
MEMORY = Memory(8192, 2**30, Limits())


class Pool:
    """Takes jobs and does nothing with them."""

    def __init__(self):
        self.jobs, self.left = [], []
        self.refusal = None

    def submit(self, job):
        if self.refusal:
            raise self.refusal
        self.jobs.append(job)

    def leave(self, job):
        self.left.append(job)

    def predicted_wait_s(self):
        return 0.5


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
def arena():
    made = Arena(8192)
    yield made
    made.close()


async def asking(executor, payload):
    task = asyncio.create_task(executor.submit(1, payload, SOON))
    await asyncio.sleep(0)
    return task


async def test_what_waits_has_no_copy_and_what_is_brought_has_one(pool, arena):
    call = await asking(Executor(pool, arena, MEMORY, decodes_apart=False), b"picture")
    (job,) = pool.jobs
    assert (arena.held_count, arena.reserved_count) == (0, 1)
    job.bring(job)
    assert (arena.held_count, job.bring) == (1, None)
    begin = job.input.offset + 64
    assert bytes(arena.memory[begin : begin + job.input.byte_count]) == b"picture"
    job.deliver(SCORED)
    assert await call is SCORED
    assert (arena.held_count, arena.reserved_count) == (0, 0)


async def test_what_does_not_fit_is_refused_even_before_it_is_copied(pool, arena):
    executor = Executor(pool, arena, MEMORY, decodes_apart=False)
    call = await asking(executor, bytes(6000))
    with pytest.raises(QueueFullError, match="fill its memory") as failure:
        await executor.submit(1, bytes(3000), SOON)
    assert (failure.value.queued_count, failure.value.retry_s > 0) == (1, True)
    pool.jobs[0].deliver(InferenceFailedError("x"))
    with pytest.raises(InferenceFailedError):
        await call
    again = await asking(executor, bytes(8000))
    again.cancel()


async def test_an_array_has_room_for_what_its_picture_becomes(pool, arena):
    executor = Executor(pool, arena, MEMORY, decodes_apart=True)
    task = asyncio.create_task(executor.submit(1, b"picture", SOON, room_bytes=5000))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await executor.submit(1, b"picture", SOON, room_bytes=5000)
    task.cancel()


async def test_who_is_not_let_in_leaves_nothing_behind(pool, arena):
    pool.refusal = NotServingError("x")
    with pytest.raises(NotServingError):
        await Executor(pool, arena, MEMORY, decodes_apart=False).submit(1, b"picture", SOON)
    assert (arena.held_count, arena.reserved_count) == (0, 0)


@pytest.mark.parametrize("brought", [False, True])
async def test_who_leaves_is_said_to_have_left(pool, arena, brought):
    call = await asking(Executor(pool, arena, MEMORY, decodes_apart=False), b"picture")
    (job,) = pool.jobs
    if brought:
        job.bring(job)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pool.left == [job]
    if brought:
        assert arena.memory[job.input.offset] == 1  # whoever has it sees that it is not wanted
    job.deliver(None)
    assert (arena.held_count, arena.reserved_count) == (0, 0)


async def test_large_pictures_come_with_what_they_take_and_others_are_none(pool):
    """The size is the header's; those that no memory would hold never come."""
    arena = Arena(2**20)
    executor = Executor(pool, arena, MEMORY, decodes_apart=False)
    for size in ((2000, 1000), (2000, 2000)):
        await asking(executor, picture(size=size))
    small, large = pool.jobs
    assert (small.alone, small.decoding_bytes) == (False, 0)
    assert large.alone
    assert large.decoding_bytes >= 3 * 4_000_000
    narrow = Executor(pool, arena, Memory(8192, 1_000_000, Limits()), decodes_apart=False)
    with pytest.raises(PictureTooLargeError, match="needs 4000000 pixels, at most"):
        await narrow.submit(1, picture(size=(2000, 2000)), SOON)
    assert arena.reserved_count == 2
    arena.close()


@pytest.mark.parametrize("end", ["answered", "failed", "refused", "left"])
async def test_no_picture_stays_in_a_circle_of_references(pool, arena, end):
    """Pictures are large, and the collector of circles comes seldom."""
    payload = np.ones(3)  # of which, unlike bytes, there can be weak references
    kept = weakref.ref(payload)
    gc.collect()
    gc.disable()
    try:
        if end == "refused":
            pool.refusal = NotServingError("full")
        call = await asking(Executor(pool, arena, MEMORY, decodes_apart=False), payload)
        if end == "left":
            call.cancel()
        elif end != "refused":
            (job,) = pool.jobs
            job.bring(job)
            job.deliver(SCORED if end == "answered" else InferenceFailedError("no"))
        with contextlib.suppress(asyncio.CancelledError, InferenceFailedError, NotServingError):
            await call
        if end == "left":
            pool.left.pop().deliver(None)
        pool.jobs.clear()
        pool.refusal = job = None
        del call, payload
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()
