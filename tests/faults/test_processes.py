"""Faults of the machine, played on a whole server: descriptors and memory run out, processes stop and die at random.

Run by `make test-faults`.
"""

import contextlib
import os
import random
import resource
import signal
import threading
import time
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from taxon.client import Client
from taxon.errors import TaxonError
from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from tests.fakes import toy_bundle
from tests.faults.served import RED, until

pytestmark = pytest.mark.faults

CGROUP = Path("/sys/fs/cgroup/memory")


def test_without_a_descriptor_left_a_worker_is_started_once_there_are_some(serve):
    served = serve("--workers", "2")
    until(lambda: len(served.workers()) == 2)
    used = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (used - 1, limits[1]))
    os.kill(served.workers()[0], signal.SIGKILL)
    until(lambda: len(served.workers()) == 1)
    time.sleep(3)  # several attempts
    assert len(served.workers()) == 1
    assert served.label() == "red"  # by a connection of its own, as soon as a descriptor is free
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: len(served.workers()) == 2)
    assert served.label() == "red"


@pytest.mark.parametrize(("patience", "stopped_s"), [(("--max-run-seconds", "5"), 6), ((), 40)])
def test_a_worker_that_is_stopped_for_long_is_replaced_and_the_other_serves(serve, patience, stopped_s):
    served = serve("--workers", "2", *patience)
    until(lambda: len(served.workers()) == 2)
    time.sleep(1)
    stopped, ends = served.workers()[-1], time.monotonic() + stopped_s
    os.kill(stopped, signal.SIGSTOP)
    lost, answered = 0, 0
    with Client(served.address, timeout_s=1.0) as client:
        while time.monotonic() < ends:
            try:
                assert client.classify(RED).classifications[0].label == "red"
                answered += 1
            except TaxonError:
                lost += 1
            time.sleep(0.02)
    assert answered > 50
    assert lost <= 2  # what it had in its hands
    assert stopped not in served.workers()
    until(lambda: len(served.workers()) == 2)


def test_workers_killed_at_random_lose_only_what_they_held(serve):
    served = serve("--workers", "2")
    until(lambda: len(served.workers()) == 2)
    over, outcomes = threading.Event(), []

    def ask():
        with Client(served.address, timeout_s=10.0) as client:
            while not over.is_set():
                try:
                    outcomes.append(client.classify(RED).classifications[0].label)
                except TaxonError as error:
                    outcomes.append(type(error).__name__)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    dice = random.Random(0)
    for _ in range(12):
        answered = outcomes.count("red")
        until(lambda answered=answered: outcomes.count("red") > answered + 20)
        time.sleep(dice.uniform(0.1, 0.8))
        for pid in served.workers()[:1]:
            os.kill(pid, signal.SIGKILL)
    over.set()
    for asker in askers:
        asker.join()
    failed = [outcome for outcome in outcomes if outcome != "red"]
    assert len(outcomes) > 200
    assert len(failed) <= 12 * 4
    served.wait_until_ready()
    until(lambda: len(served.workers()) == 2)
    assert served.label() == "red"


def test_workers_killed_at_every_moment_of_a_load_leave_a_consistent_server(serve, models):
    served = serve("--workers", "2", "--model-control", "explicit")
    stub = GRPCInferenceServiceStub(served.channel)
    toy_bundle(models, "other")
    dice = random.Random(1)
    for _ in range(10):
        until(lambda: len(served.workers()) >= 2)
        load = stub.RepositoryModelLoad.future(oip.RepositoryModelLoadRequest(model_name="other"), timeout=20)
        time.sleep(dice.uniform(0.0, 0.2))
        os.kill(dice.choice(served.workers()), signal.SIGKILL)
        load.exception()  # loaded, or refused because two died
        states = {one.name: one for one in stub.RepositoryIndex(oip.RepositoryIndexRequest()).models}
        assert states["colors"].state == "READY"
        assert states["other"].state == ("UNAVAILABLE" if load.exception() else "READY")
        with contextlib.suppress(grpc.RpcError):
            stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="other"), timeout=20)
    served.wait_until_ready()
    stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="other"), timeout=20)
    with Client(served.address) as client:
        assert client.classify(RED, model="other").classifications[0].label == "red"


@pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="no cgroup of memory may be made here")
def test_a_worker_that_the_kernel_kills_for_its_memory_is_replaced(serve):
    served = serve("--workers", "2")
    until(lambda: len(served.workers()) == 2)
    time.sleep(1)
    group = CGROUP / "taxon-test"
    group.mkdir(exist_ok=True)
    try:
        (group / "memory.limit_in_bytes").write_text(str(30 * 2**20))
        doomed = served.workers()[-1]  # who is asked first
        (group / "cgroup.procs").write_text(str(doomed))
        file = BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (5000, 5000, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "JPEG", quality=5)
        for _ in range(6):
            with contextlib.suppress(TaxonError):
                served.label(file.getvalue(), within_s=20)
            if doomed not in served.workers():
                break
        until(lambda: doomed not in served.workers())
        until(lambda: len(served.workers()) == 2)
        assert served.label() == "red"
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
