"""Workers that are threads of the test: they start at once, and follow the same orders over the same sockets."""

import os
import socket
import threading
from dataclasses import replace

from taxon.service.workers.channel import Channel, socket_pair
from taxon.service.workers.worker_main import Worker, serve, views


class ThreadWorker:
    def __init__(self, settings, arenas, on_message, on_end):
        ours, self._theirs = socket_pair()
        worker = Worker(settings, views(os.dup(arena) for arena in arenas))
        self._thread = threading.Thread(target=self._serve, args=(worker, settings.role == "run"), daemon=True)
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
        try:
            self._theirs.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended

    def close(self):
        self._channel.close()

    def wait(self, timeout_s):
        self._thread.join(timeout_s)
        return -9


class ThreadWorkers:
    """See `StartWorker`."""

    def __init__(self, settings, arenas):
        self._settings, self._arenas = settings, arenas

    def __call__(self, number, role, on_message, on_end):
        return ThreadWorker(replace(self._settings, role=role), self._arenas, on_message, on_end)
