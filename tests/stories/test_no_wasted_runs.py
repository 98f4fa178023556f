"""A real `taxon serve` and a real client: what nobody waits for any more never costs a model run.

The worker process is stopped while calls come in, so that it is certain what waits; the metrics page tells the rest.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.commands import serving
from tests.fakes import picture

RED = pb.ClassifyRequest(image=picture())


class Served:
    """A running server."""

    def __init__(self, process, address, metrics_port):
        self.process, self.address = process, address
        self._page = f"http://127.0.0.1:{metrics_port}/metrics"

    def metric(self, name):
        """The sum over the labels."""
        with urllib.request.urlopen(self._page, timeout=10) as page:
            return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page.read().decode(), re.MULTILINE)))

    def until(self, name, value):
        ends = time.monotonic() + 20
        while self.metric(name) != value:
            assert time.monotonic() < ends, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.01)

    @contextmanager
    def stopped_worker(self):
        (worker,) = map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)


@pytest.fixture
def served(models):
    flags = ["--metrics-port", 0, "--workers", 1]
    with serving(models, *flags, stderr=subprocess.PIPE) as (process, address):
        listening = next(line for line in map(json.loads, process.stderr) if line["event"] == "listening")
        yield Served(process, address, listening["metrics_port"])


def test_expired_and_cancelled_calls_never_cost_a_run(served):
    with grpc.insecure_channel(served.address) as channel:
        stub = ClassificationServiceStub(channel)
        stub.Classify(RED, timeout=10)
        before = served.metric("taxon_batch_size_sum")
        with served.stopped_worker():
            answered = [stub.Classify.future(RED, timeout=30)]  # already with the worker when it goes on
            served.until("taxon_in_flight_inputs", 1)
            cancelled = [stub.Classify.future(RED, timeout=30) for _ in range(6)]
            expired = [stub.Classify.future(RED, timeout=0.5) for _ in range(6)]
            batch = stub.BatchClassify.future(pb.BatchClassifyRequest(requests=[RED] * 100), timeout=30)
            answered += [stub.Classify.future(RED, timeout=30) for _ in range(3)]
            for call in expired:
                assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            served.until("taxon_in_flight_inputs", len(answered) + len(cancelled) + 32)
            for call in (*cancelled, batch):
                call.cancel()
            served.until("taxon_in_flight_inputs", len(answered))
        assert {call.result().classifications[0].label for call in answered} == {"red"}
        stub.Classify(RED, timeout=10)
        served.until("taxon_in_flight_inputs", 0)
        assert served.metric("taxon_batch_size_sum") == before + len(answered) + 1
        assert served.metric("taxon_dropped_inputs_total") == len(cancelled) + len(expired) + 32


def test_a_worker_that_has_a_batch_drops_what_its_callers_have_left(served):
    """Cancelled in the worker's hands: it decodes and runs only what is still wanted."""
    with grpc.insecure_channel(served.address) as channel:
        stub = ClassificationServiceStub(channel)
        stub.Classify(RED, timeout=10)
        before = served.metric("taxon_batch_size_sum")
        with served.stopped_worker():
            call = stub.Classify.future(RED, timeout=30)
            served.until("taxon_in_flight_inputs", 1)
            call.cancel()
            served.until("taxon_in_flight_inputs", 0)
        stub.Classify(RED, timeout=10)
        assert served.metric("taxon_batch_size_sum") == before + 1
        assert served.metric("taxon_dropped_inputs_total") == 1
