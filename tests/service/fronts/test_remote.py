"""A front's executor where another process owns the workers: what it sends, and when its blocks are free again."""

import asyncio

import numpy as np
import pytest

from taxon.bundle.picture_limits import Limits
from taxon.service.errors import NotServingError, QueueFullError
from taxon.service.fronts.front_protocol import Delivered, Leave, Submit
from taxon.service.fronts.remote import RemotePool
from taxon.service.scheduling.arena import Arena, ArenaView
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.memory import Memory
from taxon.service.workers.executor import Executor

SCORED = Scored(np.ones(3, np.float32), 0.0, 0.0, 0.0, 1)
SOON = 1e12
MEMORY = Memory(8192, 2**30, Limits())


class Sent:
    """A channel that keeps what it is to send."""

    def __init__(self):
        self.messages = []

    def send_soon(self, message):
        self.messages.append(message)


class Fronted:
    """An executor, and its end of the channel."""

    def __init__(self, arena, *, decodes_apart):
        self.channel, self.board = Sent(), Board(2)
        self.pool = RemotePool(self.channel, self.board)
        self.executor = Executor(self.pool, arena, MEMORY, 1, decodes_apart=decodes_apart)

    async def ask(self, payload, **facts):
        task = asyncio.create_task(self.executor.submit(7, payload, SOON, **facts))
        await asyncio.sleep(0)
        return task


@pytest.fixture
def arena():
    made = Arena(8192)
    yield made
    made.close()


@pytest.fixture
async def front(arena):
    return Fronted(arena, decodes_apart=False)


async def test_an_input_is_in_its_block_when_it_is_handed_on(front, arena):
    call = await front.ask(b"picture", priority=3)
    (sent,) = front.channel.messages
    assert sent == Submit(sent.number, 7, sent.input, SOON, 3, 0)
    assert (sent.input.arena, sent.input.byte_count, sent.input.dtype) == (1, 7, None)
    assert bytes(arena.memory[sent.input.offset + 64 :][:7]) == b"picture"
    front.pool.delivered(Delivered(sent.number, SCORED))
    assert await call is SCORED
    assert (arena.held_count, arena.reserved_count) == (0, 0)


async def test_arrays_go_the_same_way(front):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    call = await front.ask(array)
    (sent,) = front.channel.messages
    assert (sent.input.dtype, sent.input.shape, sent.decoding_bytes) == (array.dtype, (2, 3), 0)
    front.pool.delivered(Delivered(sent.number, NotServingError("x")))
    with pytest.raises(NotServingError):
        await call


async def test_copies_and_explanations_are_refused_before_they_are_copied_while_every_worker_is_busy(front, arena):
    front.board.predicted_wait_s = 0.1
    with pytest.raises(QueueFullError, match="idle"):
        await asyncio.wait_for(front.executor.submit(7, b"picture", SOON, background=True), 1)
    assert (front.channel.messages, arena.held_count, arena.reserved_count) == ([], 0, 0)
    await front.ask(b"picture")
    front.board.predicted_wait_s = 0.0
    await front.ask(b"picture", background=True)
    assert [sent.background for sent in front.channel.messages] == [False, True]


@pytest.mark.parametrize(("decodes_apart", "fit"), [(False, 8), (True, 2)])
async def test_pictures_have_room_for_what_they_become_only_where_they_are_decoded_in_place(arena, decodes_apart, fit):
    front = Fronted(arena, decodes_apart=decodes_apart)
    calls = [await front.ask(bytes(1000), room_bytes=4000) for _ in range(fit)]
    with pytest.raises(QueueFullError, match="fill its memory"):
        await front.executor.submit(7, bytes(1000), SOON, room_bytes=4000)
    for call in calls:
        call.cancel()


async def test_who_leaves_is_told_of_and_keeps_the_block_until_it_is_delivered(front, arena):
    """A worker may be reading it."""
    call = await front.ask(b"picture")
    (sent,) = front.channel.messages
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert front.channel.messages[1:] == [Leave(sent.number)]
    assert arena.memory[sent.input.offset] == 1
    assert arena.held_count == 1
    front.pool.delivered(Delivered(sent.number, None))
    assert (arena.held_count, arena.reserved_count) == (0, 0)


async def test_answers_come_in_any_order(front):
    calls = [await front.ask(bytes([count] * 10)) for count in range(3)]
    for sent in reversed(front.channel.messages):
        front.pool.delivered(Delivered(sent.number, SCORED._replace(batch_size=sent.input.offset)))
    offsets = [sent.input.offset for sent in front.channel.messages]
    assert [(await call).batch_size for call in calls] == offsets


async def test_workers_find_the_input_by_its_place(front, arena):
    import os

    await front.ask(b"picture")
    (sent,) = front.channel.messages
    view = ArenaView(os.dup(arena.descriptor))
    assert bytes(view.input(sent.input.offset, sent.input.byte_count)) == b"picture"
    assert not view.gone(sent.input.offset)
