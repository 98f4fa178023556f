"""An extra worker that is started for a proof alone, where every other one is needed."""

import asyncio
import time

from taxon.service.workers import worker_slots
from taxon.service.workers.worker_protocol import Load, Run
from taxon.service.workers.worker_slots import Patience
from tests.service.workers.pools import job, settled
from tests.waiting import until


async def test_where_every_worker_is_needed_another_is_started_for_the_proof(opened):
    one = opened(workers=1)
    healthy = await one.load("healthy")
    loading = one.begin_load("new")
    await settled()
    (extra,) = one.workers.extras
    assert extra.role == "whole"
    assert extra.owes == [Load(2, "new", 1, None, gently=True)]
    assert not one.workers[0].owes
    (asked,) = one.submit(job(healthy))
    assert not extra.told(Run)
    one.workers[0].run()
    assert asked.outcome.batch_size == 1
    extra.prove()
    await settled()
    assert not extra.lives
    assert extra.killed
    assert not loading.done()  # proven, but no worker that serves has it
    one.workers[0].prove()
    assert not (await loading).refused
    assert one.workers[0].models == {1, 2}
    assert len(one.workers.started) == 2


async def test_an_extra_worker_never_serves(opened):
    one = opened(workers=1)
    await one.load("healthy")
    one.begin_load("new")
    await settled()
    one.workers[0].die()
    assert one.pool.serving_count == 0
    one.workers.extras[0].prove()
    assert one.pool.serving_count == 0


async def test_a_model_that_ends_extra_workers_is_refused_without_harm(opened):
    one = opened(workers=1)
    healthy = await one.load("healthy")
    loading = one.begin_load("bad")
    await settled()
    for count in (1, 2):
        assert len(one.workers.extras) == count
        one.workers.extras[-1].die(-6)
    assert "status -6" in (await loading).refused
    assert len(one.workers.extras) == 2
    assert one.workers[0].told(Load) == [Load(healthy, "healthy", 1, None)]
    assert len(one.workers.started) == 3


async def test_an_extra_worker_that_hangs_is_ended(opened):
    one = opened(workers=1)
    await one.load("healthy")
    one.pool._slots._patience = Patience(60, 0.01)
    bad = await one.begin_load("bad")
    assert "ended twice" in bad.refused
    assert len(one.workers.extras) == 3  # the first left it to idle time
    assert all(extra.killed for extra in one.workers.extras)
    assert one.workers[0].models == {1}


async def test_a_proof_that_finds_no_idle_time_begins_again_among_batches(opened, monkeypatch):
    """Else a server of one worker that is always asked would refuse what it has no time to load."""
    monkeypatch.setattr(worker_slots, "BESIDE_S", 0.01)
    one = opened(workers=1)
    await one.load("healthy")
    loading = one.begin_load("heavy")
    await until(lambda: len(one.workers.extras) == 2)
    assert [extra.told(Load)[0].gently for extra in one.workers.extras] == [True, False]
    await asyncio.sleep(0.05)
    one.workers.extras[1].prove()
    await settled()
    assert not one.workers[0].told(Load)[1].gently  # it would find none either
    one.workers[0].prove()
    assert not (await loading).refused


async def test_a_proof_that_is_only_long_goes_on(opened, monkeypatch):
    monkeypatch.setattr(worker_slots, "BESIDE_S", 0.05)
    one = opened(workers=1)
    await one.load("healthy")
    loading = one.begin_load("heavy")
    await settled()
    one.workers.extras[0].computed_s = 0.04
    await asyncio.sleep(0.1)
    one.workers.extras[0].prove()
    await settled()
    assert one.workers[0].told(Load)[1].gently
    one.workers[0].prove()
    assert not (await loading).refused
    assert len(one.workers.extras) == 1


async def test_extra_workers_that_cannot_be_started_are_tried_again_but_not_more_and_more_often(opened, monkeypatch):
    one = opened(workers=1)
    await one.load("healthy")
    monkeypatch.setattr(worker_slots, "EXTRA_PAUSE_S", 0.002)
    one.workers.refuses = lambda number: number < 0
    before = len(one.workers.tries)
    loads = [one.begin_load("first"), one.begin_load("second")]
    began = time.monotonic()
    await until(lambda: len(one.workers.tries) - before > 60)
    rounds = (time.monotonic() - began) / 0.002
    assert len(one.workers.tries) - before <= 2 * (rounds + 4)
    one.workers.refuses = lambda number: False
    await until(lambda: one.workers.extras)
    while not all(loading.done() for loading in loads):
        one.workers.prove_all()
        await settled()
    assert one.workers[0].models == {1, 2, 3}
