"""SIGTERM ends a server within its grace, whatever its processes do; a second signal ends it at once."""

import os
import signal
import time
from pathlib import Path

import grpc
import pytest

from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.fakes import picture
from tests.faults.callers import Callers
from tests.faults.served import Served


class Started(Served):
    """All of its processes matter here."""

    def children(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def ends_within(self, seconds):
        began = time.monotonic()
        status = self.process.wait(30)
        assert time.monotonic() - began < seconds
        return status


@pytest.fixture
def start(models):
    started = []

    def begin(*flags):
        started.append(Started(models, "--workers", "1", *flags))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("fronts", ["1", "2"])
def test_an_idle_server_ends_at_once(start, fronts):
    server = start("--fronts", fronts)
    children = server.children()
    server.process.terminate()
    assert server.ends_within(3) == 0
    assert all(has_ended(pid) for pid in children)


@pytest.mark.parametrize("fronts", ["1", "2"])
def test_no_call_is_cancelled_because_a_server_leaves(start, fronts):
    """Calls that come are answered until their connection is led away; then nobody listens, which every client retries
    elsewhere.
    """
    server = start("--fronts", fronts, "--max-connection-age-seconds", "0.5")
    with Callers(server.address, pause_s=0.005) as callers:
        time.sleep(0.7)
        answered = callers.answered
        server.process.terminate()
        assert server.ends_within(15) == 0
    assert callers.answered > answered > 10
    assert {lost.split(":")[0] for lost in callers.lost} == {"UNAVAILABLE"}
    assert all("refused" in lost for lost in callers.lost)


@pytest.mark.slow
def test_a_hung_run_ends_with_the_grace(start):
    server = start("--drain-grace-seconds", "1")
    (worker,) = server.children()
    os.kill(worker, signal.SIGSTOP)
    call = ClassificationServiceStub(server.channel).Classify.future(pb.ClassifyRequest(image=picture()), timeout=20)
    time.sleep(0.3)
    server.process.terminate()
    assert server.ends_within(4) == 0
    assert call.exception(5).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert has_ended(worker)


@pytest.mark.slow
def test_a_second_signal_does_not_wait(start):
    server = start("--drain-delay-seconds", "30")
    children = server.children()
    server.process.terminate()
    time.sleep(0.7)
    assert server.process.poll() is None
    server.process.terminate()
    assert server.ends_within(2) == 1
    time.sleep(0.3)
    assert all(has_ended(pid) for pid in children)


@pytest.mark.slow
@pytest.mark.parametrize("fronts", ["1", "2"])
def test_nothing_is_left_of_a_server_that_is_killed(start, fronts):
    server = start("--fronts", fronts)
    children = server.children()
    os.kill(children[-1], signal.SIGSTOP)  # it cannot see that its socket is closed
    server.process.kill()
    server.process.wait()
    ends = time.monotonic() + 5
    while not all(has_ended(pid) for pid in children) and time.monotonic() < ends:
        time.sleep(0.02)
    assert all(has_ended(pid) for pid in children)
