"""Large messages are received in turns: how many bytes a message has is known only once all of them are here.

Until then what a caller has sent waits on his side, by HTTP/2's flow control.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taxon.service.errors import DeadlineTooShortError, FieldInvalidError

# A caller who has been given a turn and sends nothing must not keep others out.
TURN_S = 5.0


class Reception:
    """The memory for large messages of a front."""

    def __init__(self, max_bytes: int, max_message_bytes: int) -> None:
        """Holds nothing.

        Args:
            max_bytes: Of all messages that are being received or worked on.
            max_message_bytes: The most that one may have.
        """
        self._turns = asyncio.Semaphore(max(1, max_bytes // max_message_bytes))

    @asynccontextmanager
    async def message(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The only message of a call, received when it is its turn; it keeps its place until it has been worked on.

        Raises:
            FieldInvalidError: The call has no message.
            DeadlineTooShortError: It did not come in time.
        """
        async with self._turns:
            try:
                async with asyncio.timeout(TURN_S):
                    request = await anext(aiter(requests), None)
            except TimeoutError:
                raise DeadlineTooShortError(0.0, TURN_S) from None
            if request is None:
                raise FieldInvalidError("", "the call has no message")
            yield request
