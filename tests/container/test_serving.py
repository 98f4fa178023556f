"""A service in a container: it answers, drains, and comes back when its memory was not enough."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from taxon.client import Client
from taxon.errors import TaxonError
from tests.container.docker import docker, running
from tests.faults.callers import Callers
from tests.faults.served import until
from tests.faults.test_memory import encoded

pytestmark = pytest.mark.container

MIB = 2**20
LARGE = ("--memory", "4g", "--memory-swap", "4g", "--cpus", "2")
SMALL = ("--memory", "500m", "--memory-swap", "500m")
MANY = ("--workers", "2", "--max-decoding-bytes", str(2000 * MIB))
"""More than the container holds once its limit is lowered behind the service's back, which would not start so."""


def test_it_becomes_healthy_answers_and_drains_without_losing_a_call(image, models):
    with running(image("service-cpu"), models, "--memory", "1g", "--cpus", "2") as container:
        container.wait_until_healthy()
        assert container.label() == "red"
        with Callers(container.address) as callers:  # which retry nothing
            until(lambda: callers.answered > 100)
            docker("kill", "--signal", "TERM", container.id)
            until(lambda: not container.state["Running"])
        assert container.state["ExitCode"] == 0
        assert not container.state["OOMKilled"]
        assert '"stopped"' in container.log
        # Nobody listens any more when all is over: only that may be said.
        assert {lost.partition(":")[0] for lost in callers.lost} <= {"UNAVAILABLE"}


def fill(address, count=6):
    """Has so many pictures of 49 megapixels decoded at once; what their callers are told, if anything."""
    huge, outcomes = encoded("WEBP", 7000, 7000), []

    def ask():
        try:
            with Client(address, timeout_s=20) as client:
                outcomes.append(client.classify(huge).classifications[0].label)
        except TaxonError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_worker_that_is_killed_for_its_memory_costs_its_own_input_only(image, models):
    began = time.time()
    with running(image("service-cpu"), models, *LARGE, flags=MANY) as container:
        container.wait_until_healthy()
        docker("update", *SMALL, container.id)
        outcomes = fill(container.address)
        sys.stdout.write(f"{outcomes}, {container.events(began, 'oom')} killed\n")
        assert container.events(began, "oom") > 0
        assert "INFERENCE_FAILED" in outcomes
        assert container.label() == "red"
        assert container.events(began, "die") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root says whom the kernel is to kill")
def test_a_container_that_is_killed_for_its_memory_is_ready_again(image, models):
    """The kernel is told to take the first process before a worker, and the container ends with it."""
    began = time.time()
    with running(image("service-cpu"), models, *LARGE, "--restart", "on-failure", flags=MANY) as container:
        container.wait_until_healthy()
        Path(f"/proc/{container.state['Pid']}/oom_score_adj").write_text("1000")
        docker("update", *SMALL, container.id)
        fill(container.address)
        until(lambda: container.restarts == 1)
        killed = time.monotonic()
        docker("update", *LARGE[:4], container.id)  # else it would refuse to start, by its own flags
        assert container.events(began, "oom") > 0
        until(lambda: answers(container))
        sys.stdout.write(f"ready again {time.monotonic() - killed:.1f} s after the kill\n")
        container.wait_until_healthy()
        assert container.restarts == 1


def answers(container):
    try:
        return container.label(within_s=2) == "red"
    except TaxonError:
        return False
