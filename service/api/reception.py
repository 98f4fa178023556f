"""Large messages are received in turns: how many bytes a message has is known only once all of them are here.

Until then what a caller has sent waits on his side, by HTTP/2's flow control.
"""

import asyncio
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
    """The memory for large messages of a front."""

    def __init__(self, max_bytes: int, max_message_bytes: int) -> None:
        """Holds nothing.

        Args:
            max_bytes: Of all messages that are being received or worked on.
            max_message_bytes: The most that one may have.
        """
        self._turns = asyncio.Semaphore(max(1, max_bytes // max_message_bytes))
        self._held_count = 0
        self._left_behind = False

    @asynccontextmanager
    async def message(self, context: Context) -> AsyncIterator[Any]:
        """The only message of a call, received when it is its turn; it keeps its place until it has been worked on.

        Not by the iterator that gRPC offers as well: that keeps the message, in a circle of references.

        Raises:
            FieldInvalidError: The call has no message.
            DeadlineTooShortError: It did not come in time.
        """
        async with self._turns:
            try:
                async with asyncio.timeout(TURN_S):
                    request = await context.read()
            except TimeoutError:
                raise DeadlineTooShortError(0.0, TURN_S) from None
            if request is grpc.aio.EOF:
                raise FieldInvalidError("", "the call has no message")
            self._held_count += 1
            self._left_behind |= isinstance(request, Message) and request.ByteSize() > LEAVES_MUCH_BYTES
            try:
                yield request
            finally:
                self._held_count -= 1
                if self._left_behind and not self._held_count:
                    self._left_behind = False
                    asyncio.get_running_loop().call_later(TIDY_S, self._tidy)

    def _tidy(self) -> None:
        """The allocator keeps the pieces of large messages, in as many arenas as there are threads that read."""
        if not self._held_count:
            asyncio.get_running_loop().run_in_executor(None, freed_memory.release)
