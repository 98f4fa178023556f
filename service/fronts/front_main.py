"""A front process: speaks gRPC on the port that it shares with its siblings, and has the owner of the workers run what
comes in. Ends when it has been drained, or when its owner has gone.
"""

import asyncio
import socket
import sys
from typing import Any

from taxon.service import threads
from taxon.service.config import Settings
from taxon.service.fronts.asking import Asking
from taxon.service.fronts.front import Front, Shared, memory_of
from taxon.service.fronts.front_protocol import Ask, Delivered, Drain, LetIn, Listening, Told, Update
from taxon.service.fronts.remote import RemoteControl, RemotePool
from taxon.service.machine import keep_freed_memory
from taxon.service.models.repository import Repository
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.board import Board
from taxon.service.telemetry import logs
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.channel import Channel
from taxon.service.workers.child_process import begin
from taxon.service.workers.executor import Executor


class FrontProcess:
    """One front and its channel."""

    def __init__(
        self,
        settings: Settings,
        owner: socket.socket,
        board: Board,
        arena: Arena,
        number: int,
        *,
        decodes_apart: bool,
    ) -> None:
        self._settings = settings
        self._ended, self._told_whom = asyncio.Event(), asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._channel = Channel(owner, self._receive, self._ended.set)
        self._asking = Asking(self._channel.send, self._answer)
        self._pool = RemotePool(self._channel, board)
        self._metrics = Metrics()
        memory = memory_of(settings)
        executor = Executor(self._pool, arena, memory, number, decodes_apart=decodes_apart)
        control = RemoteControl(self._asking)
        shared = Shared(
            Repository(),
            executor,
            control,
            board,
            memory,
            lambda: self._asking.ask("statistics"),
            self._channel.send_soon,
            lambda request_id: self._asking.ask("recall", request_id),
        )
        self._front = Front(settings, shared, self._metrics, number, shares_port=True)

    async def serve(self) -> None:
        """Until drained, or until the owner has gone."""
        await self._told_whom.wait()
        await self._front.start(self._settings.listen)
        self._channel.send(Listening())
        await self._ended.wait()
        self._channel.close()

    def _receive(self, message: Any) -> None:
        match message:
            case Delivered():
                self._pool.delivered(message)
            case LetIn():
                self._front.let_in(message.entry)
                self._told_whom.set()
            case Update():
                self._front.update(message.known, message.serving)
            case Ask():
                self._asking.asked(message)
            case Told():
                self._asking.told(message)
            case Drain():
                self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        await self._front.drain()
        self._ended.set()

    async def _answer(self, ask: Ask) -> Any:
        if ask.what == "statistics":
            return dict(self._metrics.statistics.all)
        if ask.what == "recall":
            return self._front.recall(ask.name)
        if ask.what == "heard":
            return await self._front.heard(int(ask.name))
        return list(self._metrics.registry.collect())


async def _serve(argv: list[str]) -> None:
    threads.begin()
    owner, board, arena = map(int, argv[0].split(","))
    number, count, decodes_apart = map(int, argv[1:4])
    settings = Settings.model_validate_json(argv[4])
    logs.configure(settings.log_format, settings.log_level)
    shared = Board(count, board), Arena(0, arena)
    end = socket.socket(fileno=owner)
    await FrontProcess(settings, end, *shared, number, decodes_apart=bool(decodes_apart)).serve()


def main(argv: list[str]) -> None:
    """Serves the process at the other end of a socket.

    Args:
        argv: Descriptors of the socket, the board and the front's arena, joined by commas; the front's number; the
            count of fronts; whether pictures are decoded apart; the server's settings as JSON.
    """
    begin()
    keep_freed_memory()
    asyncio.run(_serve(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
