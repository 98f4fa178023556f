"""Unloading models, and the end of the pool."""

import asyncio

import pytest
from structlog.testing import capture_logs

from taxon.service.errors import NotServingError
from taxon.service.workers.worker_protocol import Unload
from taxon.service.workers.worker_slots import Patience
from tests.service.workers.pools import job, settled, tensors
from tests.waiting import until

# Unloading


async def test_unloading_waits_for_what_has_come_in_and_then_tells_every_worker(opened):
    one = opened(workers=1, decoders=1)
    model = await one.load()
    decoding, running, waiting = one.submit(job(model), tensors(model), tensors(model))
    unloading = asyncio.create_task(one.pool.unload(model))
    await settled()
    with pytest.raises(NotServingError, match="being unloaded"):
        one.submit(job(model))
    for finish in (one.workers[0].run, one.workers[0].run, one.workers[1].decode):
        assert not unloading.done()
        finish()
        await settled()
    assert not unloading.done()
    one.workers[0].run()
    await unloading
    assert {asked.outcome.batch_size for asked in (decoding, running, waiting)} == {1}
    assert one.workers[0].orders[-1] == Unload(model)
    assert not one.workers[1].told(Unload)
    assert one.pool.serving_count == 0
    assert not one.lost


async def test_unloading_takes_no_model_from_another(opened):
    one = opened()
    first, second = await one.load("first"), await one.load("second")
    await one.pool.unload(first)
    assert one.workers[0].models == {second}
    assert one.submit(job(second))
    with pytest.raises(NotServingError):
        one.submit(job(first))
    await one.pool.unload(first)  # twice is no error


async def test_successors_do_not_get_what_was_unloaded(opened):
    one = opened()
    first = await one.load("first")
    second = await one.load("second")
    await one.pool.unload(first)
    one.workers[0].die()
    await until(lambda: one.workers.loading)
    one.workers.prove_all()
    assert one.workers[0].models == {second}


@pytest.mark.parametrize("end", ["answered", "died", "hung"])
async def test_unloading_ends_however_the_last_input_ends(opened, end):
    one = opened(workers=1, patience=Patience(0.01 if end == "hung" else 60, 60))
    model = await one.load()
    held, last = one.submit(job(model), job(model))
    unloading = asyncio.create_task(one.pool.unload(model))
    await settled()
    if end == "died":
        one.workers[0].die()
    if end == "answered":
        one.workers[0].run()
        one.workers[0].run()
    await asyncio.wait_for(unloading, 20)
    assert held.outcomes
    assert last.outcomes


async def test_unloading_ends_when_the_last_caller_leaves_the_queue(opened):
    """Whatever workers do then: the only one runs something else."""
    one = opened(workers=1)
    model, other = await one.load(), await one.load("other")
    one.submit(job(other))
    (waiting,) = one.submit(job(model))
    unloading = asyncio.create_task(one.pool.unload(model))
    await settled()
    assert not unloading.done()
    one.pool.dispatcher.leave(waiting)
    await asyncio.wait_for(unloading, 20)


async def test_a_load_that_is_given_up_is_forgotten(opened):
    one = opened(workers=2)
    loading = one.begin_load()
    await settled()
    loading.cancel()
    await settled()
    (worker,) = one.workers.loading
    assert worker.orders[-1] == Unload(1)
    worker.prove()
    await settled()
    assert not one.workers.loading
    assert one.pool.serving_count == 0
    await one.load("next")
    assert one.pool.serving_count == 2


# Ending


async def test_closing_lets_idle_workers_leave_and_ends_the_others(opened):
    one = opened(workers=2, decoders=1)
    model = await one.load()
    one.submit(tensors(model))
    idle, busy = sorted((one.workers[0], one.workers[1]), key=lambda worker: len(worker.owes))
    await one.pool.close()
    assert (idle.closed, idle.killed) == (True, False)
    assert (busy.closed, busy.killed) == (True, True)
    assert all(worker.waits for worker in one.workers.started)
    await settled()
    assert len(one.workers.started) == 3


async def test_closing_ends_what_loads_and_what_decodes(opened):
    one = opened(workers=2, decoders=1)
    model = await one.load()
    one.submit(job(model))
    loading = one.begin_load("new")
    await settled()
    await one.pool.close()
    killed = [worker.number for worker in one.workers.started if worker.killed]
    assert len(killed) == 2
    assert 2 in killed
    assert one.workers.living == []
    loading.cancel()


async def test_nothing_is_started_after_closing(opened):
    one = opened()
    await one.load()
    one.workers[0].die()
    await one.pool.close()
    with capture_logs() as events:
        await asyncio.sleep(0.02)  # longer than every pause; nothing must happen
    assert len(one.workers.started) == 1
    assert not events


async def test_closing_ends_the_wait_for_an_unload(opened):
    one = opened()
    model = await one.load()
    one.submit(job(model))
    unloading = asyncio.create_task(one.pool.unload(model))
    await settled()
    await one.pool.close()
    await asyncio.wait_for(unloading, 20)


async def test_killing_ends_every_worker_at_once(opened):
    one = opened(workers=2)
    await one.load()
    one.pool.kill()
    assert all(worker.killed for worker in one.workers.started)
    await settled()
    assert len(one.workers.started) == 2


async def test_changes_of_what_can_run_are_told(opened):
    one = opened()
    model = await one.load()
    seen = one.changes
    assert seen
    one.workers[0].die()
    assert one.changes > seen
    assert one.pool.pids == []
    await until(lambda: one.workers.loading)
    assert one.pool.pids == [one.workers[0].pid]
    seen = one.changes
    one.workers[0].prove()
    assert one.changes > seen
    seen = one.changes
    await one.pool.unload(model)
    assert one.changes > seen
