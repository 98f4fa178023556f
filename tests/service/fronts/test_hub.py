"""Several fronts, seen from the process that owns the workers: played by a test, and one real one."""

import asyncio
import os
import socket

import numpy as np
import pytest
from structlog.testing import capture_logs

from taxon.service.access.callers import Callers
from taxon.service.access.entry import Entry
from taxon.service.config import parse
from taxon.service.errors import NotServingError, QueueFullError, StartError
from taxon.service.fronts import hub
from taxon.service.fronts.front_protocol import (
    Ask,
    Delivered,
    Drain,
    Leave,
    LetIn,
    Listening,
    Submit,
    Told,
    Update,
)
from taxon.service.fronts.hub import Hub
from taxon.service.models.repository import Known
from taxon.service.models.routing import Seen
from taxon.service.scheduling.arena import Arena, Input
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.board import Board
from taxon.service.telemetry.statistics import Figures
from taxon.service.workers import places
from taxon.service.workers.child_process import ChildProcess
from tests.waiting import until

SCORED = Scored(np.ones(3, np.float32), 0.0, 0.0, 0.0, 1)


class Channel:
    """Keeps what a front is told."""

    def __init__(self):
        self.told = []
        self.closed = False

    def send_soon(self, message):
        if not self.closed:
            self.told.append(message)


class FakeFront:
    """See `ChildProcess`. Says what a test has it say."""

    started = []
    refused = 0

    def __init__(self, program, descriptors, words, on_message, on_end):
        if FakeFront.refused:
            FakeFront.refused -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.words, self.say, self._on_end = words, on_message, on_end
        self.number = int(words[0])
        self.channel = Channel()
        self.killed = False
        self.pid = 100 + len(FakeFront.started)
        FakeFront.started.append(self)

    def send(self, message):
        self.channel.send_soon(message)

    def kill(self):
        self.killed = True

    def close(self):
        self.channel.closed = True

    def wait(self):
        return -9

    def die(self):
        self._on_end()

    def told(self, kind):
        return [message for message in self.channel.told if isinstance(message, kind)]


class Line:
    """See `executor.Line`."""

    def __init__(self):
        self.jobs, self.left = [], []
        self.refusal = None
        self.wait_s = 0.25

    def submit(self, job):
        if self.refusal:
            raise self.refusal
        self.jobs.append(job)

    def leave(self, job):
        self.left.append(job)

    def predicted_wait_s(self):
        return self.wait_s


class Control:
    """See `ModelControl`."""

    def __init__(self):
        self.loaded = []

    async def load(self, name):
        if name == "none":
            raise NotServingError("x")
        self.loaded.append(name)


class Opened:
    """A hub of two fronts and what it works with."""

    def __init__(self, *flags):
        self.line, self.control, self.board = Line(), Control(), Board(2)
        self.arenas = [Arena(8192), Arena(8192)]
        settings = parse(["--listen", "127.0.0.1:0", *flags])
        self.seen = []
        self.hub = Hub(
            settings,
            self.line,
            self.control,
            self.board,
            self.arenas,
            decodes_apart=False,
            report=self.seen.append,
        )

    async def start(self):
        starting = asyncio.create_task(self.hub.start("127.0.0.1:0"))
        await until(lambda: len(FakeFront.started) == 2)
        for front in FakeFront.started:
            assert not starting.done()
            front.say(Listening())
        return await starting

    def submit(self, front, number=1):
        offset = self.arenas[front.number].allocate(100)
        front.say(Submit(number, 7, Input(front.number, offset, 100), 1e12, 0, 0))
        return self.line.jobs[-1]


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setattr(hub, "ChildProcess", FakeFront)
    monkeypatch.setattr(places, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(FakeFront, "started", [])
    monkeypatch.setattr(FakeFront, "refused", 0)


@pytest.fixture
async def one(played):
    opened = Opened()
    await opened.start()
    yield opened
    opened.hub.kill()


async def test_fronts_share_one_port_that_nobody_else_gets(played):
    opened = Opened()
    port = await opened.start()
    assert [f'"listen":"127.0.0.1:{port}"' in front.words[-1] for front in FakeFront.started] == [True, True]
    with pytest.raises(StartError, match="cannot be bound"):
        await Opened().hub.start(f"127.0.0.1:{port}")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    opened.hub.kill()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


async def test_fronts_that_do_not_start_end_the_start(played, monkeypatch):
    monkeypatch.setattr(hub, "START_S", 0.05)
    opened = Opened()
    with pytest.raises(StartError, match="2 of 2 fronts did not start"):
        await opened.hub.start("127.0.0.1:0")
    opened.hub.kill()


async def test_a_front_that_cannot_be_started_is_tried_for_ever(played):
    FakeFront.refused = 5
    opened = Opened()
    with capture_logs() as events:
        await opened.start()
    assert {event["event"] for event in events} == {"front cannot be started, starting another"}
    assert len(events) == 5
    opened.hub.kill()


async def test_an_input_goes_on_and_its_outcome_comes_back(one):
    first, second = FakeFront.started
    jobs = one.submit(first), one.submit(second)  # each counts for itself
    assert one.board.predicted_wait_s == 0.25
    jobs[0].deliver(SCORED)
    jobs[1].deliver(NotServingError("x"))
    assert first.told(Delivered) == [Delivered(1, SCORED)]
    assert isinstance(second.told(Delivered)[0].outcome, NotServingError)


async def test_fronts_know_that_nobody_has_to_wait_any_more(one):
    """Else a front would refuse copies and explanations for ever after the last call."""
    front = FakeFront.started[0]
    job = one.submit(front)
    assert one.board.predicted_wait_s == 0.25
    one.line.wait_s = 0.0
    job.deliver(SCORED)
    await asyncio.sleep(0)
    assert one.board.predicted_wait_s == 0.0
    one.line.wait_s = 0.25
    front.say(Submit(5, 7, Input(0, 0, 1), 1e12, 0, 0, True))
    one.line.wait_s = 0.0
    one.line.jobs[-1].deliver(SCORED)
    assert one.board.predicted_wait_s == 0.0
    one.board.predicted_wait_s = 0.25
    one.hub.update(Known(), serving=True)  # after a load
    await asyncio.sleep(0)
    assert one.board.predicted_wait_s == 0.0


async def test_what_may_not_come_in_is_told_its_front(one):
    one.line.refusal = QueueFullError("full", 1.0, queued_count=1, max_queued_count=1)
    front = FakeFront.started[0]
    front.say(Submit(5, 7, Input(0, 0, 1), 1e12, 0, 0))
    assert front.told(Delivered) == [Delivered(5, one.line.refusal)]


async def test_a_copy_is_one_for_the_owner_too_and_what_a_canary_does_is_told(one):
    front = FakeFront.started[0]
    front.say(Submit(5, 7, Input(0, 0, 1), 1e12, 0, 0, True))
    assert one.line.jobs[-1].background
    seen = Seen("colors", 7, "answer", 0.1)
    front.say(seen)
    assert one.seen == [seen]


async def test_who_leaves_is_told_of_unless_it_is_over(one):
    front = FakeFront.started[0]
    job = one.submit(front)
    front.say(Leave(1))
    assert one.line.left == [job]
    job.deliver(None)
    front.say(Leave(1))
    assert one.line.left == [job]


async def test_a_dead_front_is_replaced_once_nobody_reads_its_arena_any_more(one):
    """What it submitted may be in a worker's hands; its successor would write over it."""
    dead = FakeFront.started[0]
    one.hub.update(Known(), serving=True)
    one.board.hold(0, 3)
    jobs = one.submit(dead, 1), one.submit(dead, 2)
    dead.die()
    assert dead.killed
    assert one.board.held_count() == 0
    assert one.line.left == list(jobs)
    assert [one.arenas[0].memory[job.input.offset] for job in jobs] == [1, 1]  # whoever has them need not run them
    jobs[0].deliver(None)
    await asyncio.sleep(0.05)
    assert len(FakeFront.started) == 2
    jobs[1].deliver(SCORED)
    await until(lambda: len(FakeFront.started) == 3)
    successor = FakeFront.started[2]
    assert successor.number == 0
    assert successor.told(Update) == [Update(Known(), True)]
    assert one.hub.pids == [FakeFront.started[1].pid]
    successor.say(Listening())
    assert len(one.hub.pids) == 2


async def test_changes_of_one_moment_are_told_once(one):
    for serving in (True, False, True):
        one.hub.update(Known(), serving)
    await asyncio.sleep(0)
    assert [front.told(Update) for front in FakeFront.started] == [[Update(Known(), True)]] * 2


async def test_figures_are_added_up_and_those_of_a_dead_front_left_out(one):
    asking = asyncio.create_task(one.hub.statistics())
    first, second = FakeFront.started
    await until(lambda: first.told(Ask))
    (asked,) = first.told(Ask)
    first.say(Told(asked.number, {7: Figures(success_count=3)}))
    second.die()
    assert (await asking)[7].success_count == 3


async def test_a_front_has_models_loaded_and_is_told_of_failures(one):
    front = FakeFront.started[1]
    front.say(Ask(1, "load", "pets"))
    front.say(Ask(2, "load", "none"))
    await until(lambda: len(front.told(Told)) == 2)
    assert one.control.loaded == ["pets"]
    told = {message.number: message.answer for message in front.told(Told)}
    assert told[1] is None
    assert isinstance(told[2], NotServingError)


async def test_draining_waits_for_every_front_and_starts_no_other(one):
    draining = asyncio.create_task(one.hub.drain())
    await asyncio.sleep(0)
    for front in FakeFront.started:
        assert front.told(Drain) == [Drain()]
        assert not draining.done()
        front.die()
        await asyncio.sleep(0)
    await draining
    await asyncio.sleep(0.01)
    assert len(FakeFront.started) == 2


async def test_fronts_that_do_not_end_are_killed(played, monkeypatch):
    monkeypatch.setattr(hub, "ENDING_S", 0.02)
    opened = Opened("--drain-grace-seconds", "0")
    await opened.start()
    await opened.hub.drain()
    assert all(front.killed for front in FakeFront.started)


async def test_a_front_finds_its_own_program_wherever_the_server_was_started(tmp_path, monkeypatch):
    """A real one, in a folder that holds packages of the same names."""
    for package in ("service", "taxon"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('another project')\n")
    monkeypatch.chdir(tmp_path)
    messages = asyncio.Queue()
    settings = parse(["--listen", "127.0.0.1:0"])
    board, arena, ended = Board(1), Arena(8192), asyncio.Event()
    words = ["0", "1", "0", settings.model_dump_json()]
    front = ChildProcess(hub.PROGRAM, [board.descriptor, arena.descriptor], words, messages.put_nowait, ended.set)
    async with asyncio.timeout(60):
        front.send(LetIn(Entry()))
        assert await messages.get() == Listening()
        front.send(Ask(4, "statistics"))
        assert await messages.get() == Told(4, {})
        assert 0.05 < front.cpu_s() < 60
        os.kill(front.pid, 15)  # to the whole group: only its owner drains
        front.send(Drain())
        await ended.wait()
    front.close()
    assert front.wait() == 0
    assert front.cpu_s() == 0.0
    arena.close()


async def test_who_is_let_in_is_told_first_and_again_when_it_changes(one):
    """Also to a front that starts later."""
    first = FakeFront.started[0]
    assert first.channel.told[0] == LetIn(Entry())
    changed = Entry(callers=Callers())
    one.hub.let_in(changed)
    assert [front.told(LetIn)[-1] for front in FakeFront.started] == [LetIn(changed)] * 2
    first.die()
    await until(lambda: len(FakeFront.started) == 3)
    assert FakeFront.started[2].channel.told[0] == LetIn(changed)


async def test_what_changed_is_heard_once_every_front_has_said_so(one):
    """Else a caller of another front would still be told that a model which has been loaded is unknown."""
    one.hub.update(Known(), serving=True)
    hearing = asyncio.create_task(one.hub.heard(7))
    await until(lambda: all(front.told(Ask) for front in FakeFront.started))
    for front in FakeFront.started:
        assert not hearing.done()
        assert [type(message) for message in front.channel.told[-2:]] == [Update, Ask]
        (asked,) = front.told(Ask)
        assert (asked.what, asked.name) == ("heard", "7")
        front.say(Told(asked.number, None))
        await asyncio.sleep(0)
    await hearing
    assert [len(front.told(Update)) for front in FakeFront.started] == [1, 1]


@pytest.mark.parametrize("why", ["dies", "hangs"])
async def test_a_front_that_does_not_answer_holds_nobody_up(one, monkeypatch, why):
    monkeypatch.setattr(hub, "TELL_S", 60.0 if why == "dies" else 0.01)
    hearing = asyncio.create_task(one.hub.heard())
    first, second = FakeFront.started
    await until(lambda: second.told(Ask))
    first.say(Told(first.told(Ask)[0].number, None))
    if why == "dies":
        second.die()
    await asyncio.wait_for(hearing, 5)
