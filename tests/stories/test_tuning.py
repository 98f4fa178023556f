"""`taxon tune` with real servers: what it writes is what a service then runs with."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands import command, serving, taxon

pytestmark = pytest.mark.slow


def children(pid):
    """Processes below one, by their command lines."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(child)]
    return found


def test_tunes_and_serves_so(models, tmp_path):
    out = tmp_path / "tuned"
    taxon("tune", models, "--p99-ms", 500, "--seconds", 0.3, "--out", out, "--", "--device", "cpu", timeout_s=600)
    told = json.loads((out / "evidence.json").read_text())
    assert {one["stage"] for one in told["measured"]} >= {"screen", "final", "prediction"}
    assert told["predicted_calls_per_s"] > 10
    variables = dict(
        line.split("=") for line in (out / "taxon.env").read_text().splitlines() if not line.startswith("#")
    )
    assert {name.removeprefix("TAXON_").lower(): value for name, value in variables.items()} == told["chosen"]

    with serving(models, "--device", "cpu", env={**os.environ, **variables}) as (_, address):
        seen = json.loads(taxon("bench", address, "--p99-ms", 500, "--seconds", 0.3, "--json").stdout)
    assert seen["highest"]["rate"] > told["predicted_calls_per_s"] / 3


def test_who_ends_it_ends_its_server(models, tmp_path):
    words = command("tune", models, "--p99-ms", 500, "--out", tmp_path / "tuned")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as tuning:
        assert "changes to try" in tuning.stdout.readline()
        below = []
        while len(below) < 2:
            assert tuning.poll() is None
            below = children(tuning.pid)
            time.sleep(0.05)
        tuning.send_signal(signal.SIGTERM)
        assert tuning.wait(60) == 128 + signal.SIGTERM
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / "tuned").exists()
