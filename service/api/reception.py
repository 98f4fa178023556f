"""Large messages are received in turns: how many bytes a message has is known only once all of them are here.

Until then what a caller has sent waits on his side, by HTTP/2's flow control.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from taxon import freed_memory
from taxon.service.errors import DeadlineTooShortError, FieldInvalidError

Context = grpc.aio.ServicerContext[Any, Any]
# A caller who has been given a turn and sends nothing must not keep others out.
TURN_S = 5.0
LEAVES_MUCH_BYTES = 16 * 2**20
# By then gRPC has let go of the last message too.
TIDY_S = 0.5


class Reception:
    """The memory for large messages of a front. Who comes first is received first."""

    def __init__(self, max_bytes: int, max_message_bytes: int) -> None:
        """Holds nothing.

        Args:
            max_bytes: Of all messages that are being received or worked on.
            max_message_bytes: The most that one may have: so much is kept free for it until it is here.
        """
        self._most_bytes = max_message_bytes
        self._free_bytes = max(max_bytes, max_message_bytes)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_count = 0
        self._left_behind = False

    @asynccontextmanager
    async def message(self, context: Context) -> AsyncIterator[Any]:
        """The only message of a call, received when it is its turn; what it takes is held until it has been worked on.

        Not by the iterator that gRPC offers as well: that keeps the message, in a circle of references.

        Raises:
            FieldInvalidError: The call has no message.
            DeadlineTooShortError: It did not come in time.
        """
        await self._take_turn()
        held_bytes = self._most_bytes
        try:
            try:
                async with asyncio.timeout(TURN_S):
                    request = await context.read()
            except TimeoutError:
                raise DeadlineTooShortError(0.0, TURN_S) from None
            if request is grpc.aio.EOF:
                raise FieldInvalidError("", "the call has no message")
            byte_count = request.ByteSize() if isinstance(request, Message) else 0
            self._give_back(self._most_bytes - byte_count)
            held_bytes = byte_count
            self._held_count += 1
            self._left_behind |= byte_count > LEAVES_MUCH_BYTES
            try:
                yield request
            finally:
                self._held_count -= 1
                if self._left_behind and not self._held_count:
                    self._left_behind = False
                    asyncio.get_running_loop().call_later(TIDY_S, self._tidy)
        finally:
            self._give_back(held_bytes)

    async def _take_turn(self) -> None:
        if not self._waiting and self._free_bytes >= self._most_bytes:
            self._free_bytes -= self._most_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self._give_back(self._most_bytes)
            raise

    def _give_back(self, byte_count: int) -> None:
        self._free_bytes += byte_count
        while self._waiting and self._free_bytes >= self._most_bytes:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free_bytes -= self._most_bytes
                turn.set_result(None)

    def _tidy(self) -> None:
        """The allocator keeps the pieces of large messages, in as many arenas as there are threads that read."""
        if not self._held_count:
            asyncio.get_running_loop().run_in_executor(None, freed_memory.release)
