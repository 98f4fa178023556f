"""What libraries write to standard error by themselves, put into the form of the log: gRPC's and ONNX Runtime's own
lines, and what a process says as it dies. The server's process reads for all processes of the server: they inherit the
pipe, and what they have written outlives them.

Of the server's process itself the last line before a crash in native code can be lost; `faulthandler` writes past the
pipe where it happened.
"""

import faulthandler
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from threading import Thread
from typing import TextIO

import structlog

from taxon.service.telemetry.access_log import Rate

MOST_LINES_S = 50
"""Of libraries; who fails to shake hands makes gRPC write one."""
MOST_BYTES = 2**16
"""Of one line; longer ones are cut into several."""
ENDING_S = 1.0
LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}
SEVERITY = re.compile(r"(?:^|\[)([IWEF])(?:\d{4} |:)")
"""As absl and ONNX Runtime write it."""
ADDRESS = re.compile(r"\b(ipv[46]):\S+")

log = structlog.get_logger("taxon.libraries")


@contextmanager
def gathered() -> Iterator[TextIO]:
    """Reads what comes on standard error meanwhile, and writes it as JSON. Gives where this process's own log goes."""
    try:
        descriptor = sys.stderr.fileno()
    except UnsupportedOperation:  # an object in its place: libraries cannot write past it
        yield sys.stderr
        return
    real = os.dup(descriptor)
    reading, writing = os.pipe()
    os.dup2(writing, descriptor)
    os.close(writing)
    with os.fdopen(real, "w", buffering=1) as file:
        faulthandler.enable(file)
        thread = Thread(target=_pass_on, args=(reading, file), name="standard error", daemon=True)
        thread.start()
        try:
            yield file
        finally:
            sys.stderr.flush()
            os.dup2(real, descriptor)
            faulthandler.disable()
            thread.join(ENDING_S)
            if not thread.is_alive():
                os.close(reading)


def _pass_on(descriptor: int, file: TextIO) -> None:
    rate = Rate(MOST_LINES_S)
    for line in _lines(descriptor):
        text = line.decode(errors="replace").strip()
        if _is_json(text):
            file.write(text + "\n")
        elif text and rate.take():
            tell(text, rate.missed())


def _lines(descriptor: int) -> Iterator[bytes]:
    waiting = b""
    while part := os.read(descriptor, MOST_BYTES):
        *whole, waiting = (waiting + part).split(b"\n")
        yield from whole
        if len(waiting) >= MOST_BYTES:
            yield waiting
            waiting = b""
    yield waiting


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def tell(text: str, left_out: int = 0) -> None:
    """Logs a line that a library wrote, without the addresses in it.

    Args:
        text: The line.
        left_out: Lines that came before it and were too many.
    """
    found = SEVERITY.search(text)
    missed = {"lines_left_out": left_out} if left_out else {}
    getattr(log, LEVELS[found[1]] if found else "warning")(ADDRESS.sub(r"\1:-", text), **missed)
