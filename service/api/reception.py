"""Large messages are received in turns: how many bytes a message has is known only once all of them are here.

Until then what a caller has sent waits on his side, by HTTP/2's flow control. Who has a turn and sends nothing keeps
memory from others, and looks like one whose message is on its way. So turns are given by what callers have done before:
those whose last message came have half of the turns for themselves.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from taxon import freed_memory
from taxon.service.api import caller
from taxon.service.errors import FieldInvalidError, MessageLateError, QueueFullError

Context = grpc.aio.ServicerContext[Any, Any]
# A caller who has been given a turn and sends nothing must not keep others out.
TURN_S = 5.0
# One of whom nothing is known, while others like him wait.
SHORT_TURN_S = 0.25
REMEMBERED_COUNT = 4096
# Tens of megabytes of calls whose messages wait; only callers whose last message came may add to them.
MOST_WAITING = 4096
LEAVES_MUCH_BYTES = 16 * 2**20
# By then gRPC has let go of the last message too.
TIDY_S = 0.5


class Reception:
    """The memory for large messages of a front."""

    def __init__(self, max_bytes: int, max_message_bytes: int) -> None:
        """Holds nothing.

        Args:
            max_bytes: Of all messages that are being received or worked on.
            max_message_bytes: The most that one may have: so much is kept free for it until it is here.
        """
        self._most_bytes = max_message_bytes
        self._free_bytes = max(max_bytes, max_message_bytes)
        self._turn_count = self._free_bytes // max_message_bytes
        self._turns: Counter[str] = Counter()
        """Of messages that are not here yet, by caller."""
        self._came: OrderedDict[str, bool] = OrderedDict()
        """Whether the last message of each caller came, the latest last."""
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        """Calls by caller, the first first."""
        self._waiting_count = 0
        self._granted: dict[str, int] = {}
        """The number of the last turn of each caller who waits."""
        self._grant_count = 0
        self._patience: dict[asyncio.Timeout, tuple[str, float]] = {}
        """Whose message is awaited, and since when."""
        self._held_count = 0
        self._left_behind = False

    @asynccontextmanager
    async def message(self, context: Context) -> AsyncIterator[Any]:
        """The only message of a call, received when it is its turn; what it takes is held until it has been worked on.

        Not by the iterator that gRPC offers as well: that keeps the message, in a circle of references.

        Raises:
            FieldInvalidError: The call has no message.
            MessageLateError: It did not come in time.
            QueueFullError: Too many others wait already.
        """
        who = caller.of(context)
        await self._take_turn(who)
        held_bytes = self._most_bytes
        try:
            try:
                request = await self._read(context, who)
            finally:
                self._end_turn(who)
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

    async def _read(self, context: Context, who: str) -> Any:
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            async with asyncio.timeout(TURN_S) as patience:
                self._patience[patience] = who, since
                self._hurry()
                try:
                    request = await context.read()
                finally:
                    del self._patience[patience]
        except TimeoutError:
            self._remember(who, came=False)
            raise MessageLateError(loop.time() - since) from None
        if request is grpc.aio.EOF:
            raise FieldInvalidError("", "the call has no message")
        self._remember(who, came=True)
        return request

    def _remember(self, who: str, *, came: bool) -> None:
        self._came[who] = came
        self._came.move_to_end(who)
        if len(self._came) > REMEMBERED_COUNT:
            self._came.popitem(last=False)

    def _is_proven(self, who: str) -> bool:
        return self._came.get(who, False)

    async def _take_turn(self, who: str) -> None:
        if who not in self._waiting and self._may()(who):
            self._grant(who)
            return
        if self._waiting_count >= MOST_WAITING and not self._is_proven(who):
            count = self._waiting_count
            raise QueueFullError(
                f"{count} messages wait to be received", TURN_S, queued_count=count, max_queued_count=MOST_WAITING
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, {})[turn] = None
        self._waiting_count += 1
        self._hurry()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._call_off(who, turn)
            else:  # it came at the same moment
                self._end_turn(who)
                self._give_back(self._most_bytes)
            raise

    def _call_off(self, who: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(who, {})
        if turn in turns:
            del turns[turn]
            self._waiting_count -= 1
            if not turns:
                del self._waiting[who]

    def _grant(self, who: str) -> None:
        self._free_bytes -= self._most_bytes
        self._turns[who] += 1

    def _may(self) -> Callable[[str], bool]:
        """Which callers may have a turn now."""
        free_count = self._free_bytes // self._most_bytes
        is_last = free_count == 1 < self._turn_count  # for somebody who has none
        unproven_count = sum(count for who, count in self._turns.items() if not self._is_proven(who))
        is_open = unproven_count < max(1, self._turn_count // 2)

        def may(who: str) -> bool:
            return free_count > 0 and not (is_last and self._turns[who]) and (is_open or self._is_proven(who))

        return may

    def _end_turn(self, who: str) -> None:
        self._turns[who] -= 1
        if not self._turns[who]:
            del self._turns[who]

    def _give_back(self, byte_count: int) -> None:
        self._free_bytes += byte_count
        if self._waiting:
            self._pass_on()

    def _pass_on(self) -> None:
        while may := [*filter(self._may(), self._waiting)]:
            who = min(may, key=self._rank)
            turn = next(iter(self._waiting[who]))
            self._call_off(who, turn)
            if not turn.done():
                self._grant(who)
                self._grant_count += 1
                self._granted[who] = self._grant_count
                turn.set_result(None)
        self._granted = {who: self._granted[who] for who in self._waiting if who in self._granted}

    def _rank(self, who: str) -> tuple[int, int, int]:
        """Sorts callers: by whether their last message came, was never sent or did not come; then by their turns."""
        standing = {True: 0, None: 1, False: 2}[self._came.get(who)]
        return standing, self._turns[who], self._granted.get(who, 0)

    def _hurry(self) -> None:
        """Cuts turns short of callers of whom nothing is known, while others like them wait."""
        if all(map(self._is_proven, self._waiting)):
            return
        for patience, (who, since) in self._patience.items():
            until = patience.when()
            if not self._is_proven(who) and until is not None and not patience.expired():
                patience.reschedule(min(until, since + SHORT_TURN_S))

    def _tidy(self) -> None:
        """The allocator keeps the pieces of large messages, in as many arenas as there are threads that read."""
        if not self._held_count:
            asyncio.get_running_loop().run_in_executor(None, freed_memory.release)
