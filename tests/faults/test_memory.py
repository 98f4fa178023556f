"""Pictures that need much memory, in a container that has little.

A cgroup of version 1, as this test can make one, stands for the container.
"""

import contextlib
import os
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from taxon.client import Client, classify_request
from taxon.errors import TaxonError
from taxon.service.machine import private_bytes
from tests.faults.callers import Callers
from tests.faults.served import until

MIB = 2**20
CGROUP = Path("/sys/fs/cgroup/memory")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="no cgroup of memory may be made here"),
]


class Container:
    def __init__(self):
        self.group = CGROUP / "taxon-test-memory"
        self.group.mkdir(exist_ok=True)

    def limit(self, byte_count):
        (self.group / "memory.limit_in_bytes").write_text(str(byte_count))

    def enter(self):
        (self.group / "cgroup.procs").write_text("0")

    @property
    def used(self):
        return int((self.group / "memory.usage_in_bytes").read_text())

    @property
    def kills(self):
        words = (self.group / "memory.oom_control").read_text().split()
        return int(words[words.index("oom_kill") + 1])


@pytest.fixture
def container(serve):
    """Empty again when the server in it has ended."""
    made = Container()
    with contextlib.ExitStack() as stack:
        stack.callback(made.group.rmdir)
        stack.callback(lambda: until(lambda: not (made.group / "cgroup.procs").read_text()))

        def begin(*flags):
            served = serve(*flags, enter=made.enter)
            stack.callback(served.stop)
            return served

        made.serve = begin
        yield made


def encoded(form, width, height):
    file = BytesIO()
    Image.new("RGB", (width, height), (255, 0, 0)).save(file, form, **({"method": 0} if form == "WEBP" else {}))
    return file.getvalue()


def ask(address, pictures, within_s=30.0):
    """All at once; what each caller is told."""
    outcomes = []

    def one(given):
        with Client(address, timeout_s=within_s) as client:
            try:
                outcomes.append(client.classify(given).classifications[0].label)
            except TaxonError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=one, args=(given,)) for given in pictures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_pictures_that_the_container_cannot_hold_are_refused(container):
    container.limit(700 * MIB)
    server = container.serve("--workers", "2")
    huge = encoded("WEBP", 7000, 7000)
    with Callers(server.address, count=2, pause_s=0.03) as neighbours:
        time.sleep(2)
        outcomes = ask(server.address, [huge] * 8)
    sys.stdout.write(f"neighbours: p99 {neighbours.p99_s() * 1e3:.0f} ms, {len(neighbours.lost)} lost\n")
    assert {error.reason for error in outcomes} == {"IMAGE_TOO_LARGE"}
    assert neighbours.lost == []
    assert container.kills == 0
    assert server.stop() == 0


def test_large_pictures_that_it_can_hold_take_turns(container):
    """All of them at once would not fit."""
    container.limit(700 * MIB)
    server = container.serve("--workers", "4")
    until(lambda: len(server.workers()) == 4)
    large = [encoded("PNG", 3500, 2500)] * 12
    assert ask(server.address, large, within_s=60) == ["red"] * 12
    assert container.kills == 0
    assert server.stop() == 0


def test_what_has_used_up_the_memory_is_given_to_no_second_worker(container):
    """The limit is lowered behind the server's back, so that it counts wrong."""
    container.limit(4096 * MIB)
    server = container.serve("--workers", "2", "--max-decoding-bytes", 2000 * MIB)
    until(lambda: len(server.workers()) == 2)
    assert server.label() == "red"
    container.limit(container.used + 150 * MIB)
    (outcome,) = ask(server.address, [encoded("WEBP", 7000, 7000)])
    assert (outcome.reason, container.kills) == ("INFERENCE_FAILED", 1)
    until(lambda: len(server.workers()) == 2)
    assert server.label() == "red"
    container.limit(4096 * MIB)
    assert server.stop() == 0


def test_bursts_of_large_messages_are_bounded_and_given_back(serve):
    server = serve("--workers", "2")
    request = classify_request(encoded("PNG", 8, 8) + bytes(7 * MIB))  # padded: within the limit of a picture
    used, most = [], []
    over = threading.Event()

    def watch():
        while not over.wait(0.02):
            most.append(private_bytes([server.process.pid]))

    def burst():
        with Client(server.address, timeout_s=60) as client, contextlib.suppress(TaxonError):
            client.classify_batch([request] * 8)

    watching = threading.Thread(target=watch)
    watching.start()
    server.label()
    before = private_bytes([server.process.pid])
    for _ in range(3):
        callers = [threading.Thread(target=burst) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        time.sleep(1)
        used.append(private_bytes([server.process.pid]))
    over.set()
    watching.join()
    kept = [round(one / MIB) for one in used]
    sys.stdout.write(f"before {before / MIB:.0f} MiB, most {max(most) / MIB:.0f} MiB, kept {kept} MiB\n")
    assert used[-1] - before < 256 * MIB
    assert max(most) - before < 1024 * MIB
