"""Which worker proves what, and what becomes of models at whose load workers die."""

import asyncio
import time

import pytest

from taxon.service.errors import NotServingError, QueueFullError
from taxon.service.runtime.description import Description
from taxon.service.runtime.device import CPU
from taxon.service.workers import worker_slots
from taxon.service.workers.worker_protocol import Load, Run
from taxon.service.workers.worker_slots import Patience
from tests.service.fake_worker import RUN_S
from tests.service.workers.pools import job, next_load_of, settled, tensors
from tests.waiting import until

# Loading


async def test_one_worker_proves_a_model_before_the_others_get_it(opened):
    one = opened(workers=4)
    loading = one.begin_load()
    await settled()
    (first,) = one.workers.loading
    first.prove()
    loaded = await loading
    assert loaded.run_s == RUN_S
    assert one.pool.serving_count == 1
    assert len(one.workers.loading) == 3  # who serves nothing yet loads at once
    one.workers.prove_all()
    assert one.pool.serving_count == 4


async def test_half_of_the_workers_go_on_serving_while_the_others_load(opened):
    one = opened(workers=4)
    await one.load()
    one.begin_load("second")
    await settled()
    one.workers.loading[0].prove()
    seen = []
    while one.workers.loading:
        seen.append(len(one.workers.loading))
        one.workers.loading[0].prove()
    assert max(seen) == 2
    assert all(worker.models == {1, 2} for worker in one.workers.living)


@pytest.mark.parametrize("decoders", [0, 1])
async def test_a_worker_runs_batches_beside_its_load(opened, decoders):
    one = opened(workers=2, decoders=decoders)
    model = await one.load()
    one.begin_load("second")
    await settled()
    (loading,) = one.workers.loading
    asked = one.submit(*(tensors(model) for _ in range(4)))
    loading.run()
    assert any(given.outcomes for given in asked)
    loading.prove()


async def test_models_are_proved_by_several_workers_at_once(opened):
    one = opened(workers=2)
    loads = [one.begin_load("first"), one.begin_load("second")]
    await settled()
    assert {worker.owes[0].name for worker in one.workers.loading} == {"first", "second"}
    one.workers.prove_all()
    assert not any(loaded.refused for loaded in await asyncio.gather(*loads))
    one.workers.prove_all()
    assert all(len(worker.models) == 2 for worker in one.workers.living)


async def test_a_refused_model_is_refused_by_one_worker_for_all(opened):
    one = opened(workers=3)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove(refused="a golden differs")
    assert (await loading).refused == "a golden differs"
    await settled()
    assert sum(len(worker.told(Load)) for worker in one.workers.started) == 1
    assert one.pool.serving_count == 0


async def test_no_refusal_is_remembered(opened):
    """The bundle may have been mended."""
    one = opened(workers=2)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove(refused="a golden differs")
    first = await loading
    again = await one.load()
    assert again != first.model
    assert one.pool.serving_count == 2


async def test_a_model_at_whose_load_workers_die_is_refused_and_the_healthy_is_served_throughout(opened):
    one = opened(workers=2)
    healthy = await one.load("healthy")
    loading = one.begin_load("bad")
    for _ in range(2):
        await until(lambda: one.workers.loading and one.workers.loading[0].owes[-1].name == "bad")
        (proving,) = one.workers.loading
        (asked,) = one.submit(job(healthy))
        (serving,) = [worker for worker in one.workers.living if worker.told(Run) and worker.owes]
        assert serving is not proving
        serving.run()
        assert asked.outcome.batch_size == 1
        proving.die(-6)
        assert one.pool.serving_count == 1
    loaded = await loading
    assert "ended twice, the last time with status -6" in loaded.refused
    await until(lambda: one.workers.loading)
    assert one.workers.loading[0].owes == [Load(healthy, "healthy", 1, None)]
    one.workers.prove_all()
    assert one.pool.serving_count == 2
    assert not one.lost
    assert healthy == await one.load("third") - 2


async def test_two_bad_models_never_end_two_workers_that_are_needed(opened):
    one = opened(workers=2)
    healthy = await one.load("healthy")
    loads = [one.begin_load("bad"), one.begin_load("worse")]
    await settled()
    for worker in one.workers.loading:  # both at once
        worker.die(-6)
    assert one.pool.serving_count == 1
    while not all(loading.done() for loading in loads):
        proving = await next_load_of(one, "bad", "worse")
        proving.die(-6)
        assert one.pool.serving_count >= 1
        (asked,) = one.submit(job(healthy))
        next(worker for worker in one.workers.living if any(isinstance(order, Run) for order in worker.owes)).run()
        assert asked.outcome.batch_size == 1
        await settled()
    assert all("ended twice" in loading.result().refused for loading in loads)


async def test_bad_models_at_the_start_hinder_no_other(opened):
    one = opened(workers=1)
    loads = [one.begin_load("bad"), one.begin_load("good")]
    for _ in range(2):
        await until(lambda: one.workers.loading)
        assert one.workers.loading[0].owes[0].name == "bad"
        one.workers.loading[0].die()
    await until(lambda: one.workers.loading)
    one.workers.prove_all()
    bad, good = await asyncio.gather(*loads)
    assert bad.refused
    assert not good.refused
    assert one.pool.serving_count == 1


async def test_one_death_is_no_refusal(opened):
    one = opened()
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].die(-9)
    await until(lambda: one.workers.loading)
    one.workers.prove_all()
    assert not (await loading).refused


async def test_a_death_over_a_batch_is_not_the_fault_of_the_load_behind_it(opened):
    one = opened(workers=3)
    model = await one.load()
    one.submit(*(job(model) for _ in range(3)))
    loading = one.begin_load("innocent")
    await settled()
    (busy,) = one.workers.loading
    assert [type(order) for order in busy.owes] == [Run, Load]
    busy.die()
    (await next_load_of(one, "innocent")).die()  # one death at its load is no refusal
    (await next_load_of(one, "innocent")).prove()
    assert not (await loading).refused


async def test_while_every_worker_loads_the_wait_is_what_the_last_load_took(opened):
    one = opened(workers=1, decoders=1)
    model, work = await one.load(), one.pool.dispatcher
    loading = one.begin_load("second")
    await settled()
    one.workers.extras[0].prove()
    one.submit(tensors(model))
    one.workers[0].die()  # so that it is loaded apart from batches
    await until(lambda: one.workers.loading)
    one.workers[0].prove()
    assert one.workers.loading == [one.workers[0]]
    assert 0 < work.load_s < 10
    work.load_s = 20.0
    assert 15 < work.predicted_wait_s() <= 20
    with pytest.raises(QueueFullError):
        one.submit(*(job(model, time.monotonic() + 10) for _ in range(2)))  # the first may be a probe
    one.submit(job(model, time.monotonic() + 60))
    work.load_s = -2.0  # so late: as long again
    assert 2 <= work.predicted_wait_s() < 5
    one.workers[0].prove()
    await loading
    assert work.predicted_wait_s() < 0.1


async def test_every_worker_and_every_successor_runs_the_variant_that_was_chosen(opened):
    one = opened(workers=3)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove(description=Description("model", 1, [], [], {}, 8, (1,), CPU, "int8"))
    assert (await loading).description.variant == "int8"
    one.workers.prove_all()
    one.workers[1].die()
    await until(lambda: one.workers.loading)
    orders = [order.variant for worker in one.workers.started for order in worker.told(Load)]
    assert orders == ["", "int8", "int8", "int8"]


async def test_a_variant_that_ends_the_process_costs_only_itself(opened):
    one = opened(workers=1)
    loading = one.begin_load()
    await settled()
    one.workers[0].tries("int8")
    one.workers[0].die(-6)
    await until(lambda: one.workers.loading)
    (order,) = one.workers[0].owes
    assert list(order.without) == ["int8"]
    one.workers[0].die(-6)
    await until(lambda: one.workers.loading)
    assert not loading.done()  # of two deaths one was the variant's
    one.workers[0].prove()
    assert not (await loading).refused


async def test_a_variant_that_hangs_costs_only_itself(opened):
    one = opened(workers=1, patience=Patience(60, 0.05))
    loading = one.begin_load()
    await settled()
    hanging = one.workers[0]
    hanging.tries("int8")
    await until(lambda: hanging.killed and one.workers.loading and one.workers.loading[0] is not hanging)
    (order,) = one.workers[0].owes
    assert list(order.without) == ["int8"]
    one.workers[0].prove()
    assert not (await loading).refused


async def test_what_batches_take_beside_a_load_is_added_up(opened):
    one = opened(workers=2)
    model = await one.load()
    one.begin_load("second")
    await settled()
    one.submit(*(tensors(model) for _ in range(4)))
    (loading,) = one.workers.loading
    slot = next(slot for slot in one.pool._slots if slot.loading)
    assert slot.busy_s == 0
    await asyncio.sleep(0.05)
    loading.run()
    assert 0.05 <= slot.busy_s < 5


# Models that are lost


async def test_a_proven_model_at_whose_load_workers_die_later_is_given_to_no_other(opened):
    one = opened(workers=2)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove()
    model = (await loading).model
    serving = next(worker for worker in one.workers.living if worker.models)
    for _ in range(2):
        await until(lambda: one.workers.loading)
        one.workers.loading[0].die(-11)
    await until(lambda: len(one.workers.living) == 2)
    await settled()
    assert not one.workers.loading
    (asked,) = one.submit(job(model))
    serving.run()
    assert asked.outcome.batch_size == 1
    assert not one.lost
    serving.die()
    ((lost, reason),) = one.lost
    assert lost == model
    assert "ended twice" in reason
    await until(lambda: len(one.workers.living) == 2)
    assert not one.workers.loading
    with pytest.raises(NotServingError):
        one.submit(job(model))


async def test_a_proven_model_is_loaded_again_however_often_somebody_kills_workers(opened):
    one = opened(workers=2)
    model = await one.load()
    for _ in range(6):
        for worker in one.workers.living:
            worker.die(-9)
        await until(lambda: len(one.workers.loading) == 2)
    assert not one.lost
    one.workers.prove_all()
    (asked,) = one.submit(job(model))
    next(worker for worker in one.workers.living if worker.owes).run()
    assert asked.outcome.batch_size == 1


@pytest.mark.parametrize("why", ["memory", "hang"])
async def test_unless_it_is_for_what_they_do(opened, monkeypatch, why):
    """The kernel kills as an operator does, but counts; and what hangs is killed by the pool itself."""
    kills = iter(range(100))
    if why == "memory":
        monkeypatch.setattr(worker_slots, "oom_kill_count", lambda: next(kills))
    one = opened(workers=1)
    model = await one.load()
    one.pool._slots._patience = Patience(60, 0.01 if why == "hang" else 60)
    one.workers[0].die(-9)
    for _ in range(2):
        await until(lambda: one.workers.loading)
        loading = one.workers.loading[0]
        if why == "memory":
            loading.die(-9)
        await until(lambda loading=loading: loading.ended)
    await until(lambda: one.lost)
    assert [lost for lost, _ in one.lost] == [model]


async def test_deaths_that_a_successful_load_divides_do_not_add_up(opened):
    one = opened(workers=1)
    await one.load()
    for _ in range(3):
        one.workers[0].die()
        await until(lambda: one.workers.loading)
        one.workers.loading[0].die()
        await until(lambda: one.workers.loading)
        one.workers.loading[0].prove()
    assert not one.lost
    assert one.pool.serving_count == 1


async def test_those_who_wait_for_a_lost_model_are_told_why(opened):
    one = opened(workers=2)
    other = await one.load("other")
    loading = one.begin_load("bad")
    await settled()
    one.workers.loading[0].prove(run_s={1: 10.0})  # nobody is given the next one early
    bad = (await loading).model
    for _ in range(2):
        (await next_load_of(one, "bad")).die(-6)
    serving = next(worker for worker in one.workers.living if bad in worker.models)
    running, waiting = one.submit(job(bad), job(bad))
    await until(lambda: len(one.workers.living) == 2)
    one.workers.prove_all()
    serving.die(-9)
    assert "died" in str(running.outcome)
    assert "ended twice" in str(waiting.outcome)
    assert [model for model, _ in one.lost] == [bad]
    assert one.pool.serving_count == 1
    assert one.submit(job(other))


async def test_a_model_that_one_worker_refuses_is_served_by_the_others(opened):
    one = opened(workers=2)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove()
    model = (await loading).model
    refusing = one.workers.loading[0]
    refusing.prove(refused="bad_alloc")
    await settled()
    assert not one.workers.loading
    assert not one.lost
    one.submit(job(model), job(model))
    assert not refusing.told(Run)


async def test_a_model_that_every_worker_refuses_after_all_is_lost(opened):
    one = opened(workers=1)
    model = await one.load()
    one.workers[0].die()
    await until(lambda: one.workers.loading)
    one.workers[0].prove(refused="a file has changed")
    assert one.lost == [(model, "a file has changed")]


async def test_a_model_is_not_lost_while_a_worker_that_may_take_it_is_being_replaced(opened):
    one = opened(workers=2)
    loading = one.begin_load()
    await settled()
    one.workers.loading[0].prove()
    model = (await loading).model
    one.workers.loading[0].prove(refused="bad_alloc")
    next(worker for worker in one.workers.living if worker.models).die()
    assert not one.lost
    await until(lambda: one.workers.loading)
    one.workers.loading[0].prove()
    assert one.submit(job(model))


async def test_a_model_that_only_an_extra_worker_takes_is_refused(opened):
    one = opened(workers=1)
    await one.load("healthy")
    loading = one.begin_load("new")
    await settled()
    one.workers.extras[0].prove()
    await settled()
    one.workers[0].prove(refused="no room beside the other")
    assert (await loading).refused == "no room beside the other"
    assert not one.lost
