"""Feedback that was acknowledged is there whenever writers and servers are killed, and never twice."""

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from taxon.client import Client, feedback_request
from taxon.errors import TaxonError
from taxon.feedback.opening import Shared
from taxon.feedback.store import Store
from tests.fakes import picture
from tests.faults.served import until
from tests.postgres import running
from tests.taxon.feedback.entries import WRITER, kill_and_look, words_of

pytestmark = pytest.mark.faults

MESSAGES = int(os.environ.get("TAXON_FAULT_FEEDBACK", "4000"))
"""Of all writers of one store; of its servers a sixth of that."""
FEWEST, MOST = 20 * MESSAGES // 4000, 200 * MESSAGES // 4000
"""Between two deaths of a server, or of a database."""
BEGAN_S = time.monotonic()


def told(what):
    print(f"{time.monotonic() - BEGAN_S:.0f} s: {what}", flush=True)  # noqa: T201 - for whoever asks with -s


def test_writers_that_are_killed_lose_nothing(place):
    rounds = 20
    kept = kill_and_look(place, rounds, count=2 * MESSAGES // rounds, draw=random.Random(7), at_once=8)
    told(f"{kept} messages were acknowledged, {rounds} writers killed")
    assert kept > MESSAGES // 2


def test_a_database_that_is_killed_loses_nothing(tmp_path):
    """Its processes die between two lines of a writer, wherever that is; then it is started again."""
    with running() as server:
        place, acknowledged, dice = Shared(server.new(), str(tmp_path)), set(), random.Random(13)
        for life in range(6):
            words = [sys.executable, "-c", WRITER, str(life * 2 * MOST), str(2 * MOST), "1", *words_of(place)]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
                for _ in range(dice.randrange(FEWEST, MOST)):
                    acknowledged.add(int(writer.stdout.readline()))
                server.stop("immediate")
                acknowledged.update(map(int, writer.stdout))
            server.start()
        told(f"{len(acknowledged)} messages were acknowledged, a database killed 6 times")
        store = Store(place)
        said = [kept.request_id for kept in store.said()]
        assert len(said) == len({*said})
        assert {f"id-{number}" for number in acknowledged} <= {*said}
        assert len(said) <= len(acknowledged) + 6
        for kept in store.said():
            assert store.pictures.read(kept.picture, kept.extension)
        store.close()


def test_servers_that_are_killed_lose_nothing(serve, place):
    acknowledged = set()
    flags = [
        word for pair in zip(("--feedback", "--feedback-pictures"), words_of(place), strict=False) for word in pair
    ]
    dice = random.Random(11)
    for life in range(6):
        served = serve(*flags, "--feedback-sample", "0.5", "--feedback-max-per-hour", "1000000")
        ended = threading.Event()

        def send(who, address=served.address, life=life, ended=ended):
            with Client(address, timeout_s=2) as client:
                for number in range(2 * MOST):
                    if ended.is_set():
                        return
                    name = f"{who} {life} {number}"
                    image = picture((life * 20, who * 50, number % 256))
                    try:
                        answer = client.classify(image)
                        client.submit_feedback(
                            feedback_request(["blue"], contributor=name, request_id=answer.request_id)
                        )
                    except TaxonError:
                        if ended.is_set():
                            return
                        continue
                    acknowledged.add(name)

        senders = [threading.Thread(target=send, args=(who,)) for who in range(4)]
        for sender in senders:
            sender.start()
        before, wanted = len(acknowledged), dice.randrange(FEWEST, MOST)
        until(lambda before=before, wanted=wanted: len(acknowledged) - before > wanted, seconds=max(60, wanted))
        served.process.kill()
        ended.set()
        for sender in senders:
            sender.join()
    told(f"{len(acknowledged)} messages were acknowledged, 6 servers killed")
    store = Store(place)
    said = [kept.contributor for kept in store.said()]
    assert len(said) == len({*said})
    assert {store.pseudonyms.of(name) for name in acknowledged} <= {*said}
    assert len(said) <= len(acknowledged) + 6 * 4 * 4  # what was on its way at each end, with its repetitions
    store.sweep()
    kept = {kept.picture: kept.extension for kept in store.said()}
    for pair in kept.items():
        assert store.pictures.read(*pair)
    store.close()
