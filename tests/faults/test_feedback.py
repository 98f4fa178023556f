"""Feedback that was acknowledged is there whenever writers and servers are killed, and never twice."""

import os
import random
import threading

import pytest

from taxon.client import Client, feedback_request
from taxon.errors import TaxonError
from taxon.feedback.store import Store
from tests.fakes import picture
from tests.faults.served import until
from tests.taxon.feedback.entries import kill_and_look

pytestmark = pytest.mark.faults


MESSAGES = int(os.environ.get("TAXON_FAULT_FEEDBACK", "4000"))


def test_writers_that_are_killed_lose_nothing(tmp_path):
    rounds = 20
    kept = kill_and_look(tmp_path / "store", rounds, count=2 * MESSAGES // rounds, draw=random.Random(7))
    print(f"{kept} messages were acknowledged, {rounds} writers killed")  # noqa: T201 - for whoever asks with -s
    assert kept > MESSAGES // 2


def test_servers_that_are_killed_lose_nothing(serve, tmp_path):
    folder, acknowledged = tmp_path / "feedback", set()
    dice = random.Random(11)
    for life in range(6):
        served = serve("--feedback", folder, "--feedback-sample", "0.5", "--feedback-max-per-hour", "1000000")
        ended = threading.Event()

        def send(who, address=served.address, life=life, ended=ended):
            with Client(address, timeout_s=2) as client:
                for number in range(10_000):
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
        before, wanted = len(acknowledged), dice.randrange(20, 200)
        until(lambda before=before, wanted=wanted: len(acknowledged) - before > wanted)
        served.process.kill()
        ended.set()
        for sender in senders:
            sender.join()
    print(f"{len(acknowledged)} messages were acknowledged, 6 servers killed")  # noqa: T201 - likewise
    store = Store(folder)
    said = [kept.contributor for kept in store.said()]
    assert len(said) == len({*said})
    assert {store.pseudonyms.of(name) for name in acknowledged} <= {*said}
    assert len(said) <= len(acknowledged) + 6 * 4 * 4  # what was on its way at each end, with its repetitions
    store.sweep()
    kept = {kept.picture: kept.extension for kept in store.said()}
    for pair in kept.items():
        assert store.pictures.read(*pair)
    store.close()
