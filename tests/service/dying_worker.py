"""A worker whose process ends, or hangs, at the load of models of certain names, or of their int8 variant: what ONNX
Runtime does on some graphs.

python -m tests.service.dying_worker …      (as `worker_main`)
"""

import os
import signal
import sys
from pathlib import Path

from taxon.service.runtime import bundle_proof
from taxon.service.workers import worker_main

load, open_session = worker_main.Worker.load, bundle_proof.open_session


def load_or_die(self, order, tell):
    if order.name.startswith("aborts"):
        os.abort()
    if order.name.startswith("once"):
        flag = Path(self._settings.models).parent / "died-once"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if order.name.startswith("hangs"):
        signal.pause()
    return load(self, order, tell)


def open_or_die(graph, *how):
    if graph.name == "model.int8.onnx" and graph.parent.parent.name.startswith("int8-aborts"):
        os.abort()
    return open_session(graph, *how)


worker_main.Worker.load, bundle_proof.open_session = load_or_die, open_or_die
worker_main.main(sys.argv[1:])
