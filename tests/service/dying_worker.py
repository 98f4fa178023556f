"""A worker whose process ends, or hangs, at the load of models of certain names, or of their int8 variant: what ONNX
Runtime does on some graphs. At `dies-NAME`, where NAME is one of `LOAD_STEPS` or `BATCH_STEPS`, one of a server's
workers is killed, once.

python -m tests.service.dying_worker …      (as `worker_main`)
"""

import os
import signal
import sys
import threading
from pathlib import Path

from taxon.service.runtime import bundle_proof
from taxon.service.workers import worker_main
from taxon.service.workers.worker_protocol import Done, Loaded

LOAD_STEPS = "told", "read", "opened", "proven", "half-told"
BATCH_STEPS = "given", "decoded", "ran", "half-answered"

names = {}
"""Of models by number."""
fatal = set()
"""Numbers of models that end their workers with every input: later versions of `fatal…`."""


class DyingWorker(worker_main.Worker):
    def load(self, order, tell):
        names[order.model] = order.name
        if order.name.startswith("fatal") and order.version > 1:
            fatal.add(order.model)
        if order.name.startswith("aborts"):
            os.abort()
        if order.name.startswith("once"):
            self.die_once("died-once")
        if order.name.startswith("hangs"):
            signal.pause()
        self.reach("told", order)
        worker_main.store.read = self.then("read", order, store_read)
        bundle_proof.open_session = self.then("opened", order, open_or_die)
        loaded = super().load(order, tell)
        self.reach("proven", order)
        return loaded

    def gather(self, order):
        if order.model in fatal:
            os.abort()
        self.reach("given", order)
        gathered = super().gather(order)
        self.reach("decoded", order)
        return gathered

    def answer(self, gathered):
        done = super().answer(gathered)
        self.reach("ran", gathered.order)
        self.answering = gathered.order
        return done

    def then(self, step, order, function):
        def run(*words, **named):
            result = function(*words, **named)
            self.reach(step, order)
            return result

        return run

    def reach(self, step, order):
        if names[order.model] == f"dies-{step}":
            self.die_once(f"died-{step}")

    def die_once(self, name, after_s=0.0):
        flag = Path(self._settings.models).parent / name
        if flag.exists():
            return False
        flag.touch()
        if not after_s:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return True

    def pack(self, message):
        """Half of an answer, after which its worker dies."""
        frame = pack(message)
        if isinstance(message, Loaded):
            ends = names[message.model] == "dies-half-told" and self.die_once("died-half-told", 0.05)
        else:
            ends = isinstance(message, Done) and names[self.answering.model] == "dies-half-answered"
            ends = ends and self.die_once("died-half-answered", 0.05)
        return frame[: len(frame) // 2] if ends else frame


def open_or_die(graph, *how):
    if graph.name == "model.int8.onnx" and graph.parent.parent.name.startswith("int8-aborts"):
        os.abort()
    return open_session(graph, *how)


def make(*words):
    worker = DyingWorker(*words)
    worker_main.pack = worker.pack
    return worker


store_read, open_session, pack = worker_main.store.read, bundle_proof.open_session, worker_main.pack

if __name__ == "__main__":
    worker_main.Worker = make
    worker_main.main(sys.argv[1:])
