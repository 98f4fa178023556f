"""Workers that die, hang, or cannot be started."""

import time

import pytest
from structlog.testing import capture_logs

from taxon.service.errors import InferenceFailedError, NotServingError
from taxon.service.workers import worker_slots
from taxon.service.workers.worker_protocol import Load, Run
from taxon.service.workers.worker_slots import Patience
from tests.service.fake_worker import FakeWorkers
from tests.service.workers.pools import job, settled, tensors
from tests.waiting import until

# Workers that die


async def test_callers_of_a_dead_worker_are_told_and_another_is_started(opened):
    one = opened()
    model = await one.load()
    (asked,) = one.submit(job(model))
    dead = one.workers[0]
    dead.die(-9)
    assert isinstance(asked.outcome, NotServingError)
    assert "died" in str(asked.outcome)
    assert dead.closed
    assert dead.waits == 1  # no zombie
    assert one.pool.serving_count == 0
    await until(lambda: one.workers.loading)
    assert one.workers[0] is not dead
    assert one.workers[0].owes == [Load(model, "model", 1, None)]
    one.workers[0].prove()
    assert one.pool.serving_count == 1
    (asked,) = one.submit(job(model))
    one.workers[0].run()
    assert asked.outcome.batch_size == 1
    assert len(one.workers.started) == 2


async def test_what_a_killed_worker_had_is_run_by_another(opened):
    """Its callers need not come again."""
    one = opened(workers=2)
    model = await one.load()
    (held,) = one.submit(job(model))
    (dead,) = [worker for worker in one.workers.living if worker.owes]
    (other,) = [worker for worker in one.workers.living if worker is not dead]
    dead.die(-9)
    assert one.pool.serving_count == 1
    assert other.owes[0].inputs == [held.input]
    other.run()
    assert held.outcome.batch_size == 1


async def test_who_is_killed_twice_is_told(opened):
    one = opened(workers=2)
    model = await one.load()
    (held,) = one.submit(job(model))
    for _ in range(2):
        (dead,) = [worker for worker in one.workers.living if worker.told(Run)]
        dead.die(-9)
    assert isinstance(held.outcome, NotServingError)


@pytest.mark.parametrize("status", [-11, -6, 1])
async def test_what_has_ended_its_worker_is_given_to_no_other(opened, status):
    one = opened(workers=2)
    model = await one.load()
    (deadly,) = one.submit(job(model))
    (dead,) = [worker for worker in one.workers.living if worker.owes]
    dead.die(status)
    assert isinstance(deadly.outcome, InferenceFailedError)
    assert not any(worker.owes for worker in one.workers.living)


async def test_nor_what_has_used_up_the_memory(opened, monkeypatch):
    """The kernel kills as an operator does, but counts."""
    kills = iter([0, 1])
    monkeypatch.setattr(worker_slots, "oom_kill_count", lambda: next(kills))
    one = opened(workers=2)
    model = await one.load()
    (deadly,) = one.submit(job(model, decoding_bytes=1))
    (dead,) = [worker for worker in one.workers.living if worker.owes]
    dead.die(-9)
    assert isinstance(deadly.outcome, InferenceFailedError)


async def test_of_several_suspects_each_is_run_alone(opened):
    one = opened(workers=2)
    model = await one.load()
    one.submit(job(model), job(model))
    first, second, deadly = one.submit(job(model), job(model), job(model))
    one.workers[1].run()  # the three are the next batches
    together = [worker for worker in one.workers.living if len(worker.owes[0].inputs) == 2]
    (dying,) = together
    (other,) = [worker for worker in one.workers.living if worker is not dying]
    dying.die(-11)
    assert not first.outcomes
    assert not second.outcomes
    ran = []
    while other.owes:
        ran.append(other.run().inputs)
    assert all(len(inputs) == 1 for inputs in ran[1:])
    assert first.outcome.batch_size == second.outcome.batch_size == deadly.outcome.batch_size == 1


async def test_a_model_is_not_withheld_because_workers_were_killed_while_they_loaded_it(opened):
    one = opened(workers=2)
    model = await one.load()
    for _ in range(4):
        one.workers[1].die(-9)
        await until(lambda: one.workers.loading)
        assert one.workers.loading == [one.workers[1]]
    one.workers.prove_all()
    assert one.pool.serving_count == 2
    assert one.lost == []
    (asked,) = one.submit(job(model))
    assert not asked.outcomes


async def test_one_dead_worker_of_two_hurts_nobody_else(opened):
    one = opened(workers=2)
    model = await one.load()
    one.submit(job(model))
    (dead,) = [worker for worker in one.workers.living if worker.owes]
    (other,) = [worker for worker in one.workers.living if worker is not dead]
    living, waiting = one.submit(job(model), job(model))
    dead.die()
    assert one.pool.serving_count == 1
    other.run()
    other.run()
    assert waiting.outcome.batch_size == living.outcome.batch_size == 1


async def test_with_the_last_worker_those_who_wait_are_told_too(opened):
    one = opened()
    model = await one.load()
    _, waiting = one.submit(job(model), job(model))
    one.workers[0].die()
    assert str(waiting.outcome) == "no worker is ready"
    assert one.pool.dispatcher.waiting_count == 0


def pauses(events):
    return [event["pause_s"] for event in events if "pause_s" in event]


async def test_pauses_grow_and_end_when_a_batch_was_answered(opened):
    one = opened()
    model = await one.load()
    with capture_logs() as events:
        for _ in range(6):
            dying = one.workers[0]
            dying.die()
            await until(lambda: one.workers.loading)
            one.workers[0].prove()
    assert pauses(events) == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]
    one.submit(job(model))
    one.workers[0].run()
    with capture_logs() as events:
        one.workers[0].die()
    assert pauses(events) == [0.001]


async def test_pauses_of_a_decoder_end_when_pictures_were_decoded(opened):
    one = opened(decoders=1)
    model = await one.load()
    for _ in range(3):
        one.workers[1].die()
        await until(lambda: len(one.workers.living) == 2)
    one.submit(job(model))
    one.workers[1].decode()
    with capture_logs() as events:
        one.workers[1].die()
    assert pauses(events) == [0.001]


async def test_a_worker_that_cannot_be_started_is_tried_for_ever(opened):
    """No process or descriptor is to be had: likely right after a worker was killed for want of memory."""
    one = opened()
    model = await one.load()
    one.workers.refuses = lambda number: True
    with capture_logs() as events:
        one.workers[0].die()
        await until(lambda: len(one.workers.tries) > 7)
    assert pauses(events)[:6] == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]
    assert one.pool.serving_count == 0
    one.workers.refuses = lambda number: False
    await until(lambda: one.workers.loading)
    one.workers[0].prove()
    (asked,) = one.submit(job(model))
    one.workers[0].run()
    assert asked.outcome.batch_size == 1


async def test_a_pool_begins_even_if_no_worker_can_be_started_at_first(opened, monkeypatch):
    monkeypatch.setattr(FakeWorkers, "__call__", _refuse_twice(FakeWorkers.__call__))
    one = opened()
    assert one.workers.living == []
    await until(lambda: one.workers.living)
    await one.load()


def _refuse_twice(start):
    def starting(workers, *facts):
        workers.refuses = lambda number: len(workers.tries) < 3
        return start(workers, *facts)

    return starting


# Workers that hang


async def test_a_hanging_batch_is_ended(opened):
    one = opened(patience=Patience(0.01, 60))
    model = await one.load()
    asked, waiting = one.submit(job(model), job(model))
    hanging = one.workers[0]
    await until(lambda: hanging.killed)
    await until(lambda: asked.outcomes)
    assert "died" in str(asked.outcome)
    assert isinstance(waiting.outcome, NotServingError)
    await until(lambda: one.workers.loading)


async def test_what_has_hung_two_workers_is_given_to_no_third(opened):
    one = opened(workers=3, patience=Patience(0.01, 60))
    model = await one.load()
    (hanging,) = one.submit(job(model))
    await until(lambda: hanging.outcomes)
    assert isinstance(hanging.outcome, InferenceFailedError)
    assert len([worker for worker in one.workers.started if worker.told(Run)]) == 2


async def test_hanging_pictures_are_ended(opened):
    one = opened(decoders=1, patience=Patience(0.01, 60))
    model = await one.load()
    (asked,) = one.submit(job(model))
    hanging = one.workers[1]
    await until(lambda: hanging.ended)
    assert "died" in str(asked.outcome)


async def test_each_batch_has_the_whole_patience_and_nobody_is_watched_idle(opened):
    one = opened(decoders=1)
    model = await one.load()
    slot = one.pool._slots._slots[0]
    assert slot.watchdog is None
    one.submit(tensors(model), tensors(model))
    first = slot.watchdog
    one.workers[0].run()
    assert first.cancelled()
    second = slot.watchdog
    assert second.when() >= first.when()
    one.workers[0].run()
    assert second.cancelled()
    assert slot.watchdog is None


async def test_a_hanging_load_is_ended_and_refused_the_second_time(opened):
    one = opened(patience=Patience(60, 0.01))
    loaded = await one.begin_load()
    assert "the process that loads it ended twice, the last time with status -9" in loaded.refused
    assert [len(worker.told(Load)) for worker in one.workers.started[:2]] == [1, 1]
    await until(lambda: len(one.workers.started) == 3)


async def test_a_load_and_the_batch_beside_it_are_watched_apart(opened):
    one = opened(workers=2, patience=Patience(30, 600))
    model = await one.load()
    one.submit(job(model), job(model))
    bad = one.begin_load("other")
    await settled()
    (loading,) = one.workers.loading
    slot = one.pool._slots._slots[loading.number]
    assert slot.watchdog.when() - time.monotonic() < 60
    loading.run()
    assert slot.watchdog is None
    assert slot.load_watchdog.when() - time.monotonic() > 300
    loading.prove(refused="no")
    assert (await bad).refused == "no"
