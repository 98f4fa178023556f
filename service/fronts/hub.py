"""Several fronts that share one port, seen from the process that owns the workers: started, told, asked, replaced.

One queue, one readiness, one metrics page, one drain: all of them are here; a front only speaks gRPC.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client.core import Metric

from taxon.service.access.entry import Entry
from taxon.service.config import Settings
from taxon.service.errors import StartError
from taxon.service.fronts.asking import Asking
from taxon.service.fronts.front_protocol import Ask, Delivered, Drain, Leave, LetIn, Listening, Submit, Told, Update
from taxon.service.models.control import ModelControl
from taxon.service.models.repository import Known
from taxon.service.models.routing import Seen
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.batching import Job, Outcome
from taxon.service.scheduling.board import Board
from taxon.service.telemetry.statistics import Figures, Key, added
from taxon.service.workers.child_process import ENDING_S, ChildProcess, program
from taxon.service.workers.executor import Line
from taxon.service.workers.places import Places

PROGRAM = program("taxon.service.fronts.front_main")
START_S = 30.0
TELL_S = 1.0

log = structlog.get_logger(__name__)


class FrontHandle:
    """One front process, and what it has submitted."""

    def __init__(self, number: int, descriptors: Sequence[int], words: Sequence[str], hub: "Hub") -> None:
        """Starts the process.

        Args:
            number: Of the front.
            descriptors: Of the board and of its arena.
            words: Of its command line, after its descriptors.
            hub: Which it belongs to.

        Raises:
            OSError: No process or descriptor is to be had now.
        """
        self.number = number
        self.jobs: dict[int, Job] = {}
        self.settled = asyncio.Event()
        """Set once it has gone and nothing that it submitted is worked on."""
        self.listening = False
        self.process = ChildProcess(
            PROGRAM, descriptors, words, lambda message: hub.receive(self, message), lambda: hub.bury(self)
        )
        self.asking = Asking(self.process.send, hub.answer)


class Hub:
    """The fronts of one server."""

    def __init__(
        self,
        settings: Settings,
        line: Line,
        control: ModelControl,
        board: Board,
        arenas: Sequence[Arena],
        *,
        decodes_apart: bool,
        report: Callable[[Seen], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            settings: Of the server.
            line: Who takes their jobs on.
            control: Of the models.
            board: What all fronts read.
            arenas: One for each front.
            decodes_apart: See `Executor`.
            report: Told what becomes of calls while a canary is on trial.
        """
        self._settings = settings
        self._line = line
        self._control = control
        self._board = board
        self._arenas = arenas
        self._decodes_apart = decodes_apart
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._fronts: dict[int, FrontHandle] = {}
        self._places = Places("front", len(arenas), self._start)
        self._entry = Entry()
        self._update: Update | None = None
        self._telling = self._predicting = False
        self._reserved: socket.socket | None = None
        self._complete, self._emptied = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Of the processes that listen."""
        return [front.process.pid for front in self._fronts.values() if front.listening]

    async def start(self, address: str) -> int:
        """Starts every front. Returns the port that they share.

        Raises:
            StartError: The address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        self._reserved = reserve(host, int(port))
        bound: int = self._reserved.getsockname()[1]
        self._settings = self._settings.model_copy(update={"listen": f"{host}:{bound}"})
        self._places.fill()
        try:
            async with asyncio.timeout(START_S):
                await self._complete.wait()
        except TimeoutError:
            count = len(self._arenas)
            raise StartError(f"{count - len(self.pids)} of {count} fronts did not start; see the log") from None
        return bound

    def let_in(self, entry: Entry) -> None:
        """Tells every front what is asked of those who come, from now on."""
        self._entry = entry
        for front in self._fronts.values():
            front.process.send(LetIn(entry))

    def update(self, known: Known, serving: bool) -> None:
        """Tells every front what is known of the models, and whether the server serves."""
        self._update = Update(known, serving)
        self._predict_soon()
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        if not self._telling:
            return
        self._telling = False
        for front in self._fronts.values():
            front.process.send(self._update)

    async def statistics(self) -> Mapping[Key, Figures]:
        """The figures of all fronts together."""
        return added(await self._all("statistics"))

    async def metrics(self) -> list[list[Metric]]:
        """The metrics of every front."""
        return await self._all("metrics")

    async def recall(self, request_id: str) -> Any:
        """What any front remembers of an answer; None if none does."""
        return next((found for found in await self._all("recall", request_id) if found is not None), None)

    async def heard(self, model: int = 0) -> None:
        """Returns once all calls go by what `update` told last, and none holds this model any more. A front that does
        not answer is not waited for longer than a call may last.
        """
        self._tell()  # questions come behind it
        await self._all("heard", str(model), TELL_S + (self._settings.max_call_seconds if model else 0.0))

    async def _all(self, what: Any, name: str = "", within_s: float = TELL_S) -> list[Any]:
        async def one(front: FrontHandle) -> Any:
            async with asyncio.timeout(within_s):
                return await front.asking.ask(what, name)

        asked = await asyncio.gather(*(one(front) for front in self._fronts.values()), return_exceptions=True)
        return [answer for answer in asked if not isinstance(answer, BaseException)]

    async def drain(self) -> None:
        """Drains every front. Those that take longer than they may are killed."""
        self._places.closing = True
        for front in self._fronts.values():
            front.process.send(Drain())
        most_s = self._settings.drain_delay_seconds + self._settings.drain_grace_seconds + ENDING_S
        try:
            async with asyncio.timeout(most_s):
                while self._fronts:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            log.warning("fronts did not end in time, killing them", fronts=sorted(self._fronts))
        self.kill()

    async def close(self) -> None:
        """Ends at once. Without effect after a drain."""
        self.kill()

    def kill(self) -> None:
        """Ends every front at once."""
        self._places.closing = True
        for front in list(self._fronts.values()):
            self.bury(front)
        if self._reserved:
            self._reserved.close()

    def _start(self, number: int) -> None:
        words = [number, len(self._arenas), int(self._decodes_apart), self._settings.model_dump_json()]
        descriptors = self._board.descriptor, self._arenas[number].descriptor
        front = self._fronts[number] = FrontHandle(number, descriptors, [*map(str, words)], self)
        front.process.send(LetIn(self._entry))
        if self._update:
            front.process.send(self._update)

    def bury(self, front: FrontHandle) -> None:
        """Cleans up after a front that has ended, and starts the next once nobody reads its arena any more."""
        if self._fronts.get(front.number) is not front:
            return
        del self._fronts[front.number]
        front.process.close()
        front.process.kill()
        front.asking.give_up()
        self._board.forget(front.number)
        for number, job in list(front.jobs.items()):
            self._arenas[front.number].abandon(job.input.offset)
            self._leave(front, number)
        self._emptied.set()
        task = asyncio.create_task(self._replace(front))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, front: FrontHandle) -> None:
        status = await asyncio.to_thread(front.process.wait)
        if front.jobs:
            await front.settled.wait()
        if not self._places.closing:
            self._places.replace(front.number, status)

    def receive(self, front: FrontHandle, message: Any) -> None:
        """Takes a front's message."""
        match message:
            case Submit():
                self._submit(front, message)
            case Leave():
                self._leave(front, message.number)
            case Seen():
                self._report(message)
            case Ask():
                front.asking.asked(message)
            case Told():
                front.asking.told(message)
            case Listening():
                self._places.works(front.number)
                front.listening = True
                if len(self.pids) == len(self._arenas):
                    self._complete.set()
        self._predict()

    def _predict(self) -> None:
        """Tells every front how long a new input would wait."""
        self._predicting = False
        self._board.predicted_wait_s = self._line.predicted_wait_s()

    def _predict_soon(self) -> None:
        """The same once for all that is delivered together."""
        if not self._predicting:
            self._predicting = True
            self._loop.call_soon(self._predict)

    def _submit(self, front: FrontHandle, message: Submit) -> None:
        number = message.number

        def deliver(outcome: Outcome) -> None:
            del front.jobs[number]
            if not front.jobs and front.process.channel.closed:
                front.settled.set()
            if message.background:
                self._predict()  # whoever waited for an idle worker may want the next run at once
            else:
                self._predict_soon()
            front.process.channel.send_soon(Delivered(number, outcome))

        job = front.jobs[number] = Job(
            message.model,
            message.input,
            message.deadline,
            time.monotonic(),
            deliver,
            message.priority,
            decoding_bytes=message.decoding_bytes,
            background=message.background,
            span=message.span,
        )
        try:
            self._line.submit(job)
        except Exception as error:  # noqa: BLE001 - it is raised where it was submitted
            deliver(error)

    def _leave(self, front: FrontHandle, number: int) -> None:
        job = front.jobs.get(number)
        if job:
            self._line.leave(job)

    async def answer(self, ask: Ask) -> Any:
        """Does or tells what a front asks for."""
        if ask.what == "load":
            return await self._control.load(ask.name)
        if ask.what == "unload":
            return await self._control.unload(ask.name)
        if ask.what == "recall":
            return await self.recall(ask.name)
        return await self.statistics()


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds a port for fronts, which alone may share it.

    Raises:
        StartError: It is taken, or the host is none.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as alone:  # fails if anybody else listens there, sharing or not
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(where)
            bound = alone.getsockname()
        held = socket.socket(family, kind)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(bound)
    except OSError as error:
        raise StartError(f"--listen {host}:{port} cannot be bound: {error.strerror or error}") from error
    return held
