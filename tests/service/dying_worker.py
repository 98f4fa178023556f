"""A worker whose process ends, or hangs, at the load of models of certain names: what ONNX Runtime does on some graphs.

python -m tests.service.dying_worker …      (as `worker_main`)
"""

import os
import signal
import sys
from pathlib import Path

from taxon.service.workers import worker_main

load = worker_main.Worker.load


def load_or_die(self, order):
    if order.name.startswith("aborts"):
        os.abort()
    if order.name.startswith("once"):
        flag = Path(self._settings.models).parent / "died-once"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if order.name.startswith("hangs"):
        signal.pause()
    return load(self, order)


worker_main.Worker.load = load_or_die
worker_main.main(sys.argv[1:])
