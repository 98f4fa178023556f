"""Workers that are threads of the test: they start at once, and follow the same orders over the same sockets."""

import contextlib
import os
import socket
import threading
from dataclasses import replace

from taxon.service.scheduling.arena import ArenaView
from taxon.service.workers.channel import Channel, socket_pair
from taxon.service.workers.worker_main import Worker, serve


class ThreadWorker:
    def __init__(self, worker, overlaps, on_message, on_end):
        ours, self._theirs = socket_pair()
        self._thread = threading.Thread(target=self._serve, args=(worker, overlaps), daemon=True)
        self._thread.start()
        self._channel = Channel(ours, on_message, on_end)
        self.pid = os.getpid()

    def _serve(self, worker, overlaps):
        try:
            serve(self._theirs, worker, overlaps)
        except OSError:
            pass  # killed while it answered
        finally:
            self._theirs.close()

    def send(self, message):
        self._channel.send(message)

    def kill(self):
        with contextlib.suppress(OSError):  # it has ended
            self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._channel.close()

    def wait(self):
        self._thread.join(2)
        return -9


class GatedWorker(Worker):
    """Runs nothing until it is let."""

    def __init__(self, settings, arenas, gate):
        super().__init__(settings, arenas)
        self._gate = gate

    def gather(self, order):
        assert self._gate.wait(30)
        return super().gather(order)


class ThreadWorkers:
    """See `StartWorker`."""

    def __init__(self, settings, arenas):
        self._settings, self._arenas = settings, arenas

    def __call__(self, number, role, on_message, on_end):
        settings = replace(self._settings, role=role)
        worker = self.worker(settings, [ArenaView(os.dup(arena)) for arena in self._arenas])
        return ThreadWorker(worker, role == "run", on_message, on_end)

    def worker(self, settings, arenas):
        return Worker(settings, arenas)


def gated(gate):
    """Workers that run nothing before `gate`, an event, is set."""

    class GatedWorkers(ThreadWorkers):
        def worker(self, settings, arenas):
            return GatedWorker(settings, arenas, gate)

    return GatedWorkers
