"""A machine that stops for a while, has fewer cores than it had, or no process left to give."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from taxon.client import Client
from tests.fakes import toy_bundle
from tests.faults.callers import Callers
from tests.faults.served import until

pytestmark = pytest.mark.faults

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


@contextlib.contextmanager
def cgroup(controller):
    """One of version 1, as the tests can make one; whoever is in it at the end goes back to where he may be."""
    root = CGROUPS / controller
    group = root / f"taxon-test-{controller}"
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        pytest.skip(f"no cgroup of {controller} may be made here")
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        group.rmdir()


def test_a_server_that_stops_for_ten_seconds_loses_no_call(serve):
    """All of it, as a virtual machine that is moved: nobody is taken to hang, and calls that may last so long do."""
    server = serve("--workers", "2", "--max-call-seconds", "30")
    until(lambda: len(server.workers()) == 2)
    workers = server.workers()
    with Callers(server.address, pause_s=0.01, timeout_s=30) as callers:
        time.sleep(1)
        everybody = [server.process.pid, *workers]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(10)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        answered = callers.answered
        until(lambda: callers.answered > answered + 50)
    sys.stdout.write(f"stopped: {callers.answered} answered, {len(callers.lost)} lost\n")
    assert callers.lost == []
    assert max(callers.seconds) > 9
    assert server.workers() == workers


def test_a_quota_of_the_cpu_that_is_halved_loses_no_call(serve):
    with cgroup("cpu") as group:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(PERIOD_US))
        server = serve("--workers", "2", enter=lambda: (group / "cgroup.procs").write_text("0"))
        until(lambda: len(server.workers()) == 2)
        with Callers(server.address, pause_s=0.005) as before:
            time.sleep(4)
        with Callers(server.address, pause_s=0.005) as halved:
            (group / "cpu.cfs_quota_us").write_text(str(PERIOD_US // 2))
            time.sleep(4)
        sys.stdout.write(
            f"quota halved: {before.answered}, then {halved.answered} answered, {len(halved.lost)} lost, "
            f"p99 {before.p99_s() * 1e3:.0f}, then {halved.p99_s() * 1e3:.0f} ms\n"
        )
        assert before.lost == halved.lost == []
        assert halved.answered > before.answered / 4
        assert max(halved.seconds) < 5
        assert server.stop() == 0


def test_without_a_process_left_a_worker_is_started_once_there_are_some(serve, models):
    """Both load what is published meanwhile."""
    with cgroup("pids") as group:
        watching = "--workers", "2", "--watch-seconds", "0.2"
        server = serve(*watching, enter=lambda: (group / "cgroup.procs").write_text("0"))
        until(lambda: len(server.workers()) == 2)
        time.sleep(1)
        with Callers(server.address, count=2, pause_s=0.02) as callers:
            (group / "pids.max").write_text("1")  # fewer than there are: nobody ends, nobody begins
            before = server.workers()
            toy_bundle(models)
            with Client(server.address) as client:
                until(lambda: {one.version for one in client.list_models()} == {"1", "2"})
            assert server.workers() == before
            os.kill(server.workers()[0], signal.SIGKILL)
            until(lambda: len(server.workers()) == 1)
            time.sleep(3)  # several attempts
            assert len(server.workers()) == 1
            answered = callers.answered
            until(lambda: callers.answered > answered + 20)
            (group / "pids.max").write_text("max")
            until(lambda: len(server.workers()) == 2)
        assert callers.lost == []
        assert server.label() == "red"
        assert server.stop() == 0
