"""What reaches standard error: nothing but JSON, whoever says it."""

import json
import subprocess
import sys

import pytest

SPEAKER = """
import asyncio, logging, warnings
import structlog
from taxon.service.telemetry import logs

logs.configure("json", "info")
structlog.get_logger("ours").info("ours", figure=1)
logging.getLogger("library").warning("a library says %s", "this")
logging.getLogger("library").debug("not this")
warnings.warn("beware")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("a library failed")

async def fail():
    task = asyncio.create_task(lost())
    await asyncio.sleep(0)

async def lost():
    raise RuntimeError("in a task")

asyncio.run(fail())
raise ValueError("the end")
"""


def test_every_line_is_json():
    done = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, text=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [event["level"] for event in events] == ["info", "warning", "warning", "error", "error", "critical"]
    assert all("timestamp" in event for event in events)
    assert events[1]["event"] == "a library says this"
    assert "beware" in events[2]["event"]
    assert "ZeroDivisionError" in events[3]["exception"]
    assert "in a task" in events[4]["exception"]
    assert "the end" in events[5]["exception"]


SECRETIVE = """
import structlog
from taxon.service.telemetry import logs

logs.configure("FORM", "info")

def fail(picture):
    raise RuntimeError("unforeseen")

try:
    fail("sec" + "ret")
except RuntimeError:
    structlog.get_logger("ours").exception("it failed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_hold_no_values(form):
    """Of variables: those of a call are its picture, its key and what it says."""
    program = [sys.executable, "-c", SECRETIVE.replace("FORM", form)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "unforeseen" in done.stderr
    assert "secret" not in done.stderr
