"""A front process: speaks gRPC on the port that it shares with its siblings, and has the owner of the workers run what
comes in. Ends when it has been drained, or when its owner has gone.
"""

import asyncio
import ctypes
import signal
import socket
import sys
from typing import Any

from taxon.service.config import Settings
from taxon.service.fronts.asking import Asking
from taxon.service.fronts.front import Front, Shared, memory_of
from taxon.service.fronts.front_protocol import Ask, Delivered, Drain, Listen, Listening, Told, Update
from taxon.service.fronts.remote import RemoteControl, RemoteExecutor
from taxon.service.machine import keep_freed_memory
from taxon.service.models.repository import Repository
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.board import Board
from taxon.service.telemetry import logs
from taxon.service.telemetry.families import read_families
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.channel import Channel

PR_SET_PDEATHSIG = 1


class FrontProcess:
    """One front and its channel."""

    def __init__(self, settings: Settings, owner: socket.socket, board: Board, arena: Arena, number: int) -> None:
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel = Channel(owner, self._receive, self._ended.set)
        self._asking = Asking(self._channel.send, self._answer)
        memory = memory_of(settings)
        self._executor = RemoteExecutor(self._channel, arena, memory, board, number)
        self._metrics = Metrics()
        shared = Shared(
            Repository(),
            self._executor,
            RemoteControl(self._asking),
            board,
            memory,
            lambda: self._asking.ask("statistics"),
        )
        self._front = Front(settings, shared, self._metrics, number, shares_port=True)

    async def serve(self) -> None:
        """Until drained, or until the owner has gone."""
        await self._ended.wait()
        self._channel.close()

    def _receive(self, message: Any) -> None:
        match message:
            case Delivered():
                self._executor.delivered(message)
            case Update():
                self._front.update(message.known, message.serving)
            case Ask():
                self._asking.asked(message)
            case Told():
                self._asking.told(message)
            case Listen():
                self._do(self._listen(message.address))
            case Drain():
                self._do(self._drain())

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, address: str) -> None:
        self._channel.send(Listening(await self._front.start(address)))

    async def _drain(self) -> None:
        await self._front.drain()
        self._ended.set()

    async def _answer(self, ask: Ask) -> Any:
        if ask.what == "statistics":
            return dict(self._metrics.statistics.all)
        return read_families(self._metrics.registry)


async def _serve(argv: list[str]) -> None:
    owner, board, arena, number, count = map(int, argv[:5])
    settings = Settings.model_validate_json(argv[5])
    logs.configure(settings.log_format, settings.log_level)
    await FrontProcess(settings, socket.socket(fileno=owner), Board(count, board), Arena(0, arena), number).serve()


def main(argv: list[str]) -> None:
    """Serves the process at the other end of a socket.

    Args:
        argv: Descriptors of the socket, the board and the front's arena; its number; the count of fronts; the
            server's settings as JSON.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole group: the owner drains
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_freed_memory()
    asyncio.run(_serve(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
