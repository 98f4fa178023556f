"""How worker processes are started: what each is told, and which device it sees."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from taxon.service.runtime.device import CPU
from taxon.service.workers.child_process import ChildProcess, program
from taxon.service.workers.worker_protocol import AS_JSON, Role, WorkerSettings

PROGRAM = program("taxon.service.workers.worker_main")
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


StartWorker = Callable[[int, Role, Callable[[Any], None], Callable[[], None]], ChildProcess]
"""How a pool starts workers, see `WorkerProcesses`; tests have fakes."""


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
    ) -> ChildProcess:
        """Starts one.

        Args:
            number: Names the worker and chooses its device; its successors have the same.
            role: What it does.
            on_message: Told every message.
            on_end: Told that it has ended, or is about to.

        Raises:
            OSError: No process or descriptor is to be had now.
        """
        settings = replace(self._settings, role=role)
        environment = {**os.environ, "OMP_NUM_THREADS": str(settings.thread_count)}
        if settings.device.provider != CPU and role != "decode":
            visible = os.environ.get(VISIBLE_DEVICES, "").split(",")
            index = number % settings.device.count
            environment[VISIBLE_DEVICES] = visible[index] if len(visible) > 1 else visible[0] or str(index)
        return ChildProcess(
            PROGRAM, self._arenas, [AS_JSON.dump_json(settings).decode()], on_message, on_end, environment
        )
