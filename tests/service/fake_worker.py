"""Workers that note their orders and do what a test tells them: answer, die, hang, or not even start."""

import asyncio
from collections import deque

import numpy as np

from taxon.service.workers.worker_protocol import Decode, Decoded, Done, Load, Loaded, Run, Trying, Unload

RUN_S = {1: 0.010, 2: 0.012, 4: 0.016}
SCORES = np.array([0.75, 0.25], np.float32)


class FakeWorker:
    """See `ChildProcess`. One that is told nothing hangs; one that is killed ends, as a process does."""

    def __init__(self, pid, number, role, on_message, on_end):
        self.pid, self.number, self.role = pid, number, role
        self.orders = []
        """Everything it was ever told, in order."""
        self.models = set()
        self.killed = self.closed = self.ended = False
        self.waits = 0
        self.computed_s = 0.0
        self.status = 0
        self._owed = deque()
        self._on_message, self._on_end = on_message, on_end

    # What a pool calls.

    def cpu_s(self):
        return self.computed_s

    def send(self, message):
        if self.closed or self.ended:
            return
        self.orders.append(message)
        if isinstance(message, Unload):
            self.models.discard(message.model)
        else:
            self._owed.append(message)

    def kill(self):
        self.killed = True
        if not self.ended:
            asyncio.get_running_loop().call_soon(self.die, -9)

    def close(self):
        self.closed = True

    def wait(self):
        self.waits += 1
        return self.status

    # What a test calls.

    @property
    def owes(self):
        """What it has not answered yet, oldest first."""
        return list(self._owed)

    @property
    def lives(self):
        return not (self.ended or self.closed)

    def told(self, kind):
        """Its orders of one kind."""
        return [order for order in self.orders if isinstance(order, kind)]

    def tries(self, variant):
        """Says that it opens a variant of what it has to load."""
        self.say(Trying(self._owed[0].model, variant))

    def prove(self, refused="", manifest=None, run_s=None, description=None):
        """Answers the load that is next."""
        order = self._next(Load)
        if not refused:
            self.models.add(order.model)
        self.say(Loaded(order.model, refused, description, manifest, {} if refused else (run_s or RUN_S)))

    def run(self, *outcomes, preprocess_s=0.0, inference_s=0.010, run_count=None):
        """Answers the batch that is next: with these outcomes, else with scores for each."""
        order = self._next(Run)
        assert order.model in self.models
        outcomes = list(outcomes) or [SCORES] * len(order.inputs)
        if run_count is None:
            run_count = sum(not isinstance(outcome, Exception) for outcome in outcomes)
        self.say(Done(outcomes, preprocess_s, inference_s, run_count, order.bucket if run_count else 0))
        return order

    def decode(self, *outcomes, seconds=0.005):
        """Answers the pictures that are next: with these outcomes, else with an array for each."""
        order = self._next(Decode)
        arrays = [
            given._replace(byte_count=12, dtype=np.dtype("uint8"), shape=(2, 2, 3), arena=given.arena)
            for given in order.inputs
        ]
        outcomes = list(outcomes) or arrays
        self.say(Decoded(outcomes, [seconds] * len(outcomes)))
        return order

    def die(self, status=-11):
        """Ends. Its successor has to be told everything again."""
        if self.ended:
            return
        self.ended, self.status = True, status
        if not self.closed:
            self._on_end()

    def say(self, message):
        assert self.lives
        self._on_message(message)

    def _next(self, kind):
        """What is next: what may be loaded gently waits for nothing, and nothing waits for it."""
        gentle = [order for order in self._owed if isinstance(order, Load) and order.gently]
        in_turn = [order for order in self._owed if order not in gentle]
        order = gentle[0] if kind is Load and gentle else in_turn[0]
        assert isinstance(order, kind), f"next is {order}"
        self._owed.remove(order)
        return order


class FakeWorkers:
    """See `StartWorker`."""

    def __init__(self):
        self.started = []
        """Every worker that was ever started, in order."""
        self.tries = []
        """The numbers of all that were to be started."""
        self.refuses = lambda number: False
        """Whether a worker of this number cannot be started now."""

    def __call__(self, number, role, on_message, on_end):
        self.tries.append(number)
        if self.refuses(number):
            raise OSError(11, "Resource temporarily unavailable")
        worker = FakeWorker(1000 + len(self.started), number, role, on_message, on_end)
        self.started.append(worker)
        return worker

    def __getitem__(self, number):
        """The one of this number that lives."""
        (worker,) = [worker for worker in self.living if worker.number == number]
        return worker

    @property
    def living(self):
        return [worker for worker in self.started if worker.lives]

    @property
    def loading(self):
        """Those that prove something now."""
        return [worker for worker in self.living if any(isinstance(order, Load) for order in worker.owes)]

    @property
    def extras(self):
        return [worker for worker in self.started if worker.number < 0]

    def prove_all(self, **answer):
        """Everybody proves everything."""
        while loading := self.loading:
            for worker in loading:
                worker.prove(**answer)
