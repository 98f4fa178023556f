"""One worker process and the channel to it. Knows how it is started and ended; not what it works on."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from taxon.service.runtime.device import CPU
from taxon.service.workers.channel import Channel, socket_pair
from taxon.service.workers.worker_protocol import Role, WorkerSettings

# -P: the folder that the server was started in is not searched for packages.
PROGRAM = (sys.executable, "-P", "-m", "taxon.service.workers.worker_main")
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
# Enough to end after a message that says so; whoever takes longer hangs.
ENDING_S = 2.0
KILLED = -9


class WorkerHandle(Protocol):
    """What a pool needs of a worker: a process, or a fake."""

    @property
    def pid(self) -> int:
        """Of the process."""
        ...

    def send(self, message: object) -> None:
        """Gives an order."""
        ...

    def kill(self) -> None:
        """Ends it at once; `on_end` follows."""
        ...

    def close(self) -> None:
        """Lets it end after what it does now; `on_end` does not follow."""
        ...

    def wait(self, timeout_s: float) -> int:
        """Waits for the end of one that was closed or killed; kills it after `timeout_s`. Returns its status."""
        ...


class StartWorker(Protocol):
    """How a pool starts workers."""

    def __call__(
        self, number: int, role: Role, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> WorkerHandle:
        """Starts one.

        Args:
            number: Names the worker and chooses its device; its successors have the same.
            role: What it does.
            on_message: Told every message.
            on_end: Told that it has ended, or is about to.

        Raises:
            OSError: No process or descriptor is to be had now.
        """
        ...


class WorkerProcesses:
    """Starts worker processes that share settings and arenas."""

    def __init__(self, settings: WorkerSettings, arenas: Sequence[int]) -> None:
        """Starts nothing yet.

        Args:
            settings: Of every worker, but for its role.
            arenas: Descriptors of the memory of all inputs.
        """
        self._settings = settings
        self._arenas = arenas

    def __call__(
        self, number: int, role: Role, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> WorkerHandle:
        """See `StartWorker`."""
        settings = replace(self._settings, role=role)
        environment = {**os.environ, "OMP_NUM_THREADS": str(settings.thread_count)}
        if settings.device.provider != CPU and role != "decode":
            visible = os.environ.get(VISIBLE_DEVICES, "").split(",")
            index = number % settings.device.count
            environment[VISIBLE_DEVICES] = visible[index] if len(visible) > 1 else visible[0] or str(index)
        return WorkerProcess(settings, self._arenas, environment, on_message, on_end)


class WorkerProcess:
    """A running worker. Nothing here blocks but `wait`."""

    def __init__(
        self,
        settings: WorkerSettings,
        arenas: Sequence[int],
        environment: dict[str, str],
        on_message: Callable[[Any], None],
        on_end: Callable[[], None],
    ) -> None:
        ours, theirs = socket_pair()
        numbers = theirs.fileno(), *arenas
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own module
                [*PROGRAM, ",".join(map(str, numbers)), settings.to_json()],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(ours, on_message, on_end)

    @property
    def pid(self) -> int:
        """See `WorkerHandle`."""
        return self._popen.pid

    def send(self, message: object) -> None:
        """See `WorkerHandle`."""
        self._channel.send(message)

    def kill(self) -> None:
        """See `WorkerHandle`."""
        self._popen.kill()

    def close(self) -> None:
        """See `WorkerHandle`."""
        self._channel.close()

    def wait(self, timeout_s: float = ENDING_S) -> int:
        """See `WorkerHandle`."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return KILLED  # the kernel has not let go of it yet
