"""Moving the default on bundles without a graph: what is left when a process dies, and what two at once do."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from taxon.bundle import default_history, version_labels
from taxon.training.releases import promotions
from taxon.training.releases.promotions import PromotionError
from tests.taxon.test_store import publish


@pytest.fixture
def repository(tmp_path):
    """Versions 1 to 3 of `pets`, none of them labelled."""
    for _ in range(3):
        publish(tmp_path)
    return tmp_path


def promote(repository, version):
    current = promotions.current_version(repository, "pets", version)
    promotions.promote(repository, "pets", version, current, None, None)


def rollback(repository):
    return promotions.rollback(repository, "pets")


def stable(repository):
    return version_labels.read(repository, "pets").get("stable")


def run(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "."},
    )


KILLED = """
import sys
from pathlib import Path
from taxon.bundle import version_labels
from taxon.training.releases import promotions
root = Path(sys.argv[1])
print("ready", flush=True)
while True:
    version = 3 if version_labels.read(root, "pets").get("stable") == 1 else 1
    current = promotions.current_version(root, "pets", version)
    promotions.promote(root, "pets", version, current, None, "again")
"""


def test_a_killed_promotion_leaves_one_version_or_the_other(repository):
    for attempt in range(4):
        process = run(KILLED, repository)
        assert process.stdout.readline() == b"ready\n"
        until = time.monotonic() + random.Random(attempt).uniform(0.001, 0.05)
        while time.monotonic() < until or stable(repository) is None:
            assert stable(repository) in (None, 1, 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert stable(repository) in (1, 3)
        assert all(entry["to"] in (1, 3) for entry in default_history.read(repository, "pets"))
    before = stable(repository)
    assert rollback(repository) == 4 - before


DIES_BEFORE_THE_LABEL = """
import os, signal, sys
from pathlib import Path
from taxon.bundle import version_labels
from taxon.training.releases import promotions
version_labels.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
root, version = Path(sys.argv[1]), int(sys.argv[2])
if version:
    promotions.promote(root, "pets", version, promotions.current_version(root, "pets", version), None, None)
else:
    promotions.rollback(root, "pets")
"""


def die(repository, version=0):
    process = run(DIES_BEFORE_THE_LABEL, repository, version)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_promotion_killed_before_the_label_moved_did_not_happen(repository):
    promote(repository, 1)
    promote(repository, 2)
    die(repository, 3)
    assert stable(repository) == 2
    assert rollback(repository) == 1


def test_a_rollback_killed_before_the_label_moved_can_be_done_again(repository):
    promote(repository, 1)
    promote(repository, 2)
    die(repository)
    assert stable(repository) == 2
    assert rollback(repository) == 1


def test_what_a_killed_rollback_recorded_does_not_shorten_the_way_back(repository):
    for version in (1, 2):
        promote(repository, version)
    die(repository)
    promote(repository, 3)
    assert [rollback(repository), rollback(repository)] == [2, 1]


def test_a_line_cut_off_by_a_crash_does_not_hide_the_next(repository):
    promote(repository, 1)
    path = repository / "pets" / "promotions.jsonl"
    path.write_text(path.read_text() + '{"action": "promo')
    promote(repository, 3)
    assert [entry["to"] for entry in default_history.read(repository, "pets")] == [1, 3]


def test_of_promotions_at_once_one_wins_and_the_others_are_told_to_compare_again(repository):
    """Each was compared with version 1; more than one label move would leave figures about another default."""
    promote(repository, 1)
    start, won, told = threading.Barrier(6), [], []

    def try_it(version):
        start.wait()
        try:
            promotions.promote(repository, "pets", version, 1, None, None)
            won.append(version)
        except PromotionError as error:
            told.append(str(error))

    threads = [threading.Thread(target=try_it, args=(2 + number % 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(told)) == (1, 5)
    assert stable(repository) == won[0]
    assert all("meanwhile" in reason or "already" in reason for reason in told)
    assert len(default_history.read(repository, "pets")) == 2
    assert rollback(repository) == 1


def test_a_full_disk_leaves_the_default_as_it_was(repository, monkeypatch):
    promote(repository, 1)
    promote(repository, 2)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for change in (lambda: promote(repository, 3), lambda: rollback(repository)):
            with pytest.raises(OSError, match="No space"):
                change()
            assert stable(repository) == 2
    assert list((repository / "pets").glob("*traffic*")) == [repository / "pets" / "traffic.json"]
    assert rollback(repository) == 1


@pytest.mark.parametrize("name", ["../pets", "cars", ".", ""])
def test_only_models_of_the_repository_are_rolled_back(repository, name):
    with pytest.raises(PromotionError, match="has no model"):
        promotions.rollback(repository / "pets" / "..", name)
