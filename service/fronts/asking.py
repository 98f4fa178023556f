"""Questions over a channel, and their answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from taxon.service.errors import NotServingError
from taxon.service.fronts.front_protocol import Ask, Told, What

Answer = Callable[[Ask], Awaitable[Any]]


class Asking:
    """Both sides of one channel: asks, and answers."""

    def __init__(self, send: Callable[[object], None], answer: Answer) -> None:
        """Asks nothing yet.

        Args:
            send: Of the channel.
            answer: Answers the other side's questions.
        """
        self._send = send
        self._answer = answer
        self._next = 0
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def ask(self, what: What, name: str = "") -> Any:
        """Waits for an answer.

        Raises:
            Exception: What the other side raised.
        """
        self._next += 1
        number = self._next
        future = self._open[number] = asyncio.get_running_loop().create_future()
        self._send(Ask(number, what, name))
        try:
            return await future
        finally:
            del self._open[number]

    def asked(self, ask: Ask) -> None:
        """Begins to answer."""
        task = asyncio.create_task(self._tell(ask))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def told(self, told: Told) -> None:
        """Takes an answer."""
        future = self._open.get(told.number)
        if future is None or future.done():
            return
        if isinstance(told.answer, Exception):
            future.set_exception(told.answer)
        else:
            future.set_result(told.answer)

    def give_up(self) -> None:
        """The other side has gone."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(NotServingError("a process of this server has ended"))

    async def _tell(self, ask: Ask) -> None:
        try:
            answer = await self._answer(ask)
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked
            answer = error
        self._send(Told(ask.number, answer))
