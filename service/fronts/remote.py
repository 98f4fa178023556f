"""The executor and the control of a front that has no workers of its own: both ask the process that owns them."""

import asyncio

import numpy as np

from taxon.service.fronts.asking import Asking
from taxon.service.fronts.front_protocol import Delivered, Leave, Submit
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.memory import Memory
from taxon.service.workers.channel import Channel
from taxon.service.workers.executor import Payload, no_room, placed, settle, unplaced


class RemoteExecutor:
    """See `executor.Executor`."""

    def __init__(self, channel: Channel, arena: Arena, memory: Memory, board: Board, front: int) -> None:
        self._channel = channel
        self._arena = arena
        self._memory = memory
        self._board = board
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._next = 0
        self._submitted: dict[int, tuple[int, int, asyncio.Future[Scored]]] = {}

    async def submit(
        self, model: int, payload: Payload, deadline: float, priority: int = 0, room_bytes: int = 0
    ) -> Scored:
        """See `Executor`."""
        arena, given = self._arena, unplaced(payload, self._front)
        decoding_bytes = 0 if isinstance(payload, np.ndarray) else self._memory.to_decode(payload)
        byte_count = max(given.byte_count, room_bytes)
        if not arena.reserve(byte_count):
            raise no_room(arena, self.predicted_wait_s())
        given = placed(arena, given, payload, byte_count, self.predicted_wait_s)
        self._next += 1
        number = self._next
        future: asyncio.Future[Scored] = self._loop.create_future()
        self._submitted[number] = given.offset, byte_count, future
        self._channel.send_soon(Submit(number, model, given, deadline, priority, decoding_bytes))
        try:
            return await future
        except asyncio.CancelledError:
            if number in self._submitted:
                self._arena.abandon(given.offset)
                self._channel.send_soon(Leave(number))
            raise
        finally:
            del future  # the error in it would hold this frame, and so the picture, in a circle of references

    def delivered(self, message: Delivered) -> None:
        """Takes an outcome."""
        offset, byte_count, future = self._submitted.pop(message.number)
        self._arena.free(offset)
        self._arena.release(byte_count)
        settle(future, message.outcome)

    def predicted_wait_s(self) -> float:
        """See `Executor`."""
        return self._board.predicted_wait_s


class RemoteControl:
    """See `open_inference.service.Control`."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def load(self, name: str) -> None:
        """See `ModelControl.load`."""
        await self._asking.ask("load", name)

    async def unload(self, name: str) -> None:
        """See `ModelControl.unload`."""
        await self._asking.ask("unload", name)
