"""What is written past Python's logging, by this process and by those that it starts, is JSON too."""

import json
import subprocess
import sys

from structlog.testing import capture_logs

from taxon.service.telemetry.standard_error import MOST_LINES_S, tell

SPEAKER = """
import os, subprocess, sys
from taxon.service.telemetry import logs
from taxon.service.telemetry.standard_error import gathered

with gathered() as file:
    logs.configure("json", "info", file)
    os.write(2, b"W1126 14:00:00.1 7 ssl.cc:1] handshake failed with ipv4:10.1.2.3:99, sorry\\n")
    child = "import os; os.write(2, b'terminate called\\\\n{\\"event\\": \\"theirs\\"}\\\\nno end of line')"
    subprocess.run([sys.executable, "-c", child])
sys.stderr.write("after\\n")
"""
CRASH = """
import os, signal
from taxon.service.telemetry.standard_error import gathered

with gathered():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_lines_of_libraries_and_children_are_json():
    done = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, text=True, timeout=60)
    *lines, last = done.stderr.splitlines()
    events = [json.loads(line) for line in lines]
    assert done.returncode == 0
    assert last == "after"
    assert [event["event"] for event in events] == [
        "W1126 14:00:00.1 7 ssl.cc:1] handshake failed with ipv4:- sorry",
        "terminate called",
        "theirs",
        "no end of line",
    ]
    assert events[0]["level"] == "warning"


def test_a_crash_in_native_code_says_where():
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=60)
    assert done.returncode < 0
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_severity_is_read_as_libraries_write_it():
    with capture_logs() as events:
        tell("E0000 00:00:00 1 chttp2_server.cc:9] refused", 3)
        tell("2026-11-26 [W:onnxruntime:, graph.cc:1] unused")
        tell("terminate called without an active exception")
    assert [event["log_level"] for event in events] == ["error", "warning", "warning"]
    assert events[0]["lines_left_out"] == 3


def test_a_flood_is_bounded():
    flood = SPEAKER.replace('os.write(2, b"W', 'for _ in range(5000): os.write(2, b"W')
    done = subprocess.run([sys.executable, "-c", flood], capture_output=True, text=True, timeout=60)
    assert MOST_LINES_S <= done.stderr.count("handshake failed") < 10 * MOST_LINES_S
