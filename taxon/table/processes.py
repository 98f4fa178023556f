"""Answers without a server: worker processes beside this one, each of which reads, decodes and runs.

This process never looks into a picture. What ends a worker is found among what it had, and costs that file only.
"""

import json
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from typing import Any

from taxon import extras
from taxon.table.rows import INFERENCE_FAILED, Row, failed

DEPTH = 2
"""Chunks that a worker has: the next is there when one is done."""
MOST_DEATHS = 5
"""One after another, without a row between them: then it is not the pictures."""
ENDING_S = 5.0
MODULES = ("onnxruntime", "structlog")
"""Of the extra `cpu`, or `gpu`: without them a worker ends at its start."""


def check() -> None:
    """Asks whether workers can run here, and imports nothing.

    Raises:
        ValueError: What they need is not installed.
    """
    if missing := [name for name in MODULES if find_spec(name) is None]:
        raise ValueError(f"without a server it needs {missing[0]}; install it with: {extras.install('cpu')}")


def command(descriptor: int, settings: Mapping[str, Any]) -> list[str]:
    """What starts a worker. Named, not imported: this room needs no house."""
    # -P: the folder that this command was started in is not searched for packages.
    return [sys.executable, "-P", "-m", "taxon.batch_worker", str(descriptor), json.dumps(settings)]


class Worker:
    """One process and what it has been given."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = command(theirs.fileno(), settings)
            self._popen = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        self.connection = Connection(ours.detach())
        self.given: deque[list[str]] = deque()

    def ready(self) -> int:
        """Waits until it can work. Returns the cores that there are.

        Raises:
            ValueError: The model is not fit to be served, or the process has ended.
        """
        try:
            told = self.connection.recv()
        except (EOFError, OSError):
            raise ValueError(f"the worker process has ended at its start, with status {self.end()}") from None
        if "refused" in told:
            raise ValueError(told["refused"])
        return int(told["cores"])

    def give(self, names: list[str]) -> None:
        """Gives it files; `take` brings their rows."""
        self.given.append(names)
        with suppress(OSError):  # it has ended, as `take` will tell
            self.connection.send(names)

    def take(self) -> list[Row] | None:
        """The rows of what it was given first; None: it has ended."""
        try:
            rows: list[Row] = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.given.popleft()
        return rows

    def end(self) -> int:
        """Has it end. Returns its status."""
        self.connection.close()
        try:
            return self._popen.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


def answers(chunks: Iterator[list[str]], settings: Mapping[str, Any], count: int = 0) -> Iterator[list[Row]]:
    """The rows of every chunk, in the order in which they are done.

    Args:
        chunks: Names of files; taken as they are needed.
        settings: As `taxon.batch_worker` takes them.
        count: Of processes; 0: one for each core.

    Raises:
        ValueError: The model is not fit to be served, or workers end whatever they are given.
    """
    workers = [Worker(settings)]
    try:
        cores = workers[0].ready()
        workers += [Worker(settings) for _ in range(1, count or cores)]
        for worker in workers[1:]:
            worker.ready()
        yield from _rows(workers, chunks, settings)
    finally:
        for worker in workers:
            worker.end()


def _rows(workers: list[Worker], chunks: Iterator[list[str]], settings: Mapping[str, Any]) -> Iterator[list[Row]]:
    again: deque[list[str]] = deque()
    deaths = 0
    while True:
        for _ in range(DEPTH):
            for worker in workers:
                if len(worker.given) < DEPTH and (names := again.popleft() if again else next(chunks, None)):
                    worker.give(names)
        busy = [worker for worker in workers if worker.given]
        if not busy:
            return
        at_ends = wait([worker.connection for worker in busy])
        for worker in busy:
            if worker.connection not in at_ends:
                continue
            rows = worker.take()
            if rows is not None:
                deaths = 0
                yield rows
                continue
            deaths += 1
            first, *others = worker.given
            status = worker.end()
            if deaths > MOST_DEATHS:
                raise ValueError(
                    f"worker processes end one after another, the last with status {status}: is there memory?"
                )
            again.extend(others)
            if len(first) == 1:
                yield [failed(first[0], INFERENCE_FAILED, f"a worker process ended over it, with status {status}")]
            else:
                again.extend([name] for name in first)
            new = workers[workers.index(worker)] = Worker(settings)
            new.ready()
