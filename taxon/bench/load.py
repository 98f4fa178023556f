"""Sends unary calls on a schedule and notes when each was due, when it ended and how.

Open loop: arrivals are Poisson's, and a latency counts from the moment at which the call was *due*, whether or not the
generator or the connection was ready to send it: a server that stalls is charged for everybody who came meanwhile ("no
coordinated omission", G. Tene). Closed loop: so many callers, each of whom calls again when answered.
"""

import heapq
import random
import selectors
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from taxon.bench.header_block import UNAVAILABLE
from taxon.bench.http2 import NOT_TAKEN, Call, Connection, Ended, Target

DEADLINE_EXCEEDED = 4
PAUSE_S = 0.05
"""After a connection that did not come about, before the next is tried; and of a caller who found no server."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to send, and for how long. Exactly one of `callers` and `rate` counts."""

    seconds: float
    """Measured, after the warm-up."""
    warmup_s: float = 0.5
    callers: int = 0
    """Closed loop: so many calls are always under way. 0: open loop."""
    rate: float = 0.0
    """Open loop: Poisson arrivals per second."""
    connections: int = 4
    deadline_s: float = 1.0
    """Of each call, from the moment at which it was due."""
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """Every call of a run, warm-up included."""

    plan: Plan
    due_s: "array[float]" = field(default_factory=lambda: array("d"))
    """Since the beginning, when each was due; in the order in which they ended."""
    latency_s: "array[float]" = field(default_factory=lambda: array("d"))
    """Of each, from when it was due to its end."""
    status: "array[int]" = field(default_factory=lambda: array("b"))
    """gRPC's code of each."""
    lag_s: "array[float]" = field(default_factory=lambda: array("d"))
    """How late each was sent."""
    cpu_s: float = 0.0
    """That the generator spent while it measured."""


class Line(Protocol):
    """What carries calls: an HTTP/2 connection; benchmarks have another for peers without gRPC."""

    free: bool
    leaving: bool
    closed: bool
    heard: bool

    @property
    def wants_write(self) -> bool:
        """Whether it has something to send that the socket has not taken."""
        ...

    @property
    def socket(self) -> socket.socket:
        """To wait for."""
        ...

    def call(self, call: Call) -> None:
        """Begins a call."""
        ...

    def cancel(self, call: Call, status: int) -> None:
        """Ends a call that nobody waits for."""
        ...

    def read(self) -> None:
        """Takes in what has come."""
        ...

    def write(self) -> None:
        """Sends what can be sent."""
        ...

    def close(self) -> None:
        """Lets go of the socket."""
        ...


Connect = Callable[[Target, float, Ended], Line]


def run(target: Target, bodies: Sequence[bytes], plan: Plan, connect: Connect = Connection) -> Outcome:
    """Sends the load.

    Args:
        target: Where to.
        bodies: Requests as they go over the wire (see `http2.message`), sent in turn.
        plan: How much.
        connect: Opens a connection; tests and benchmarks have others.
    """
    return _Run(target, bodies, plan, connect).run()


class _Run:
    def __init__(self, target: Target, bodies: Sequence[bytes], plan: Plan, connect: Connect) -> None:
        self._target, self._bodies, self._plan, self._connect = target, bodies, plan, connect
        self._dice = random.Random(plan.seed)  # noqa: S311 - arrivals, not secrets
        self._selector = selectors.DefaultSelector()
        self._lines: deque[Line] = deque()  # which take calls
        self._all: list[Line] = []
        self._failed_at = -PAUSE_S
        self._sent: deque[Call] = deque()  # in the order of their deadlines
        self._under_way = self._count = 0
        self._due: list[float] = []
        self._outcome = Outcome(plan)
        self._began = 0.0

    def run(self) -> Outcome:
        plan = self._plan
        for _ in range(plan.connections):
            self._open()
        began = self._began = time.perf_counter()
        counted_from, ends = began + plan.warmup_s, began + plan.warmup_s + plan.seconds
        self._due = [began] * plan.callers if plan.callers else [began + self._dice.expovariate(plan.rate)]
        cpu_from = None
        while self._under_way or (self._due and self._due[0] < ends):
            now = time.perf_counter()
            if cpu_from is None and now >= counted_from:
                cpu_from = time.process_time()
            self._send(ends)
            self._expire(time.perf_counter())
            self._wait(ends)
        self._outcome.cpu_s = time.process_time() - cpu_from if cpu_from is not None else 0.0
        for line in self._all:
            line.close()
        self._selector.close()
        return self._outcome

    def _send(self, ends: float) -> None:
        """What is due."""
        due, plan = self._due, self._plan
        now = time.perf_counter()
        while due and due[0] <= now and due[0] < ends:
            at = heapq.heappop(due)
            call = Call(at, self._bodies[self._count % len(self._bodies)])
            self._count, self._under_way = self._count + 1, self._under_way + 1
            self._sent.append(call)
            self._give(call)
            self._outcome.lag_s.append(time.perf_counter() - at)
            if not plan.callers:
                heapq.heappush(due, at + self._dice.expovariate(plan.rate))

    def _give(self, call: Call) -> None:
        """To the next connection; without one the call has failed."""
        line = self._next()
        if line is None:
            call.ended = True
            self._end(call, UNAVAILABLE)
        else:
            call.line = line
            line.call(call)

    def _next(self) -> Line | None:
        if any(line.leaving for line in self._lines):
            self._lines = deque(line for line in self._lines if not line.leaving)
        while len(self._lines) < self._plan.connections and self._open():
            pass
        for _ in range(len(self._lines)):
            self._lines.rotate(-1)
            if self._lines[-1].free:
                return self._lines[-1]
        return self._lines[-1] if self._open() else None

    def _open(self) -> bool:
        if time.perf_counter() < self._failed_at + PAUSE_S:
            return False
        try:
            line = self._connect(self._target, self._plan.deadline_s, self._end)
        except OSError:
            self._failed_at = time.perf_counter()
            return False
        self._selector.register(line.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, line)
        self._lines.append(line)
        self._all.append(line)
        return True

    def _expire(self, now: float) -> None:
        """Ends what has passed its deadline, as a client does."""
        while self._sent:
            call = self._sent[0]
            while call.again:
                call = call.again
            if not call.ended and call.due + self._plan.deadline_s > now:
                return
            self._sent.popleft()
            if not call.ended and call.line is not None:
                call.line.cancel(call, DEADLINE_EXCEEDED)

    def _wait(self, ends: float) -> None:
        """For something to come, or to become due."""
        wake = [self._due[0]] if self._due and self._due[0] < ends else []
        wake += [self._sent[0].due + self._plan.deadline_s] if self._sent else []
        for key, events in self._selector.select(max(0.0, min(wake, default=0.0) - time.perf_counter())):
            line: Line = key.data
            if events & selectors.EVENT_READ:
                line.read()
            if events & selectors.EVENT_WRITE and not line.closed:
                line.write()
        closed = [line for line in self._all if line.closed]
        for line in closed:
            if not line.heard:
                self._failed_at = time.perf_counter()
            self._selector.unregister(line.socket)
            line.close()
            self._all.remove(line)
        for line in self._all:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.wants_write else 0)
            if self._selector.get_key(line.socket).events != events:
                self._selector.modify(line.socket, events, line)

    def _end(self, call: Call, status: int) -> None:
        now = time.perf_counter()
        if status == NOT_TAKEN and now < call.due + self._plan.deadline_s:
            call.again = Call(call.due, call.body)
            self._give(call.again)
            return
        self._under_way -= 1
        self._outcome.due_s.append(call.due - self._began)
        self._outcome.latency_s.append(now - call.due)
        self._outcome.status.append(UNAVAILABLE if status == NOT_TAKEN else status)
        if self._plan.callers:
            heapq.heappush(self._due, now + (PAUSE_S if status == UNAVAILABLE else 0.0))
