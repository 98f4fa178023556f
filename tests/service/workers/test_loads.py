"""Which worker proves which model: bookkeeping over slots, without workers."""

import pytest

from taxon.service.runtime.description import Description
from taxon.service.runtime.device import CPU
from taxon.service.workers.loads import Loads
from taxon.service.workers.worker_protocol import Load, Loaded
from taxon.service.workers.worker_slot import BESIDE_S, Batch, WorkerSlot


def slot(number, *models, role="whole", extra=False):
    return WorkerSlot(number, role, None, extra, set(models))


class Told:
    """Loads, with what they asked for."""

    def __init__(self, extra=None):
        self.extra = extra
        self.extra_count = 0
        self.lost = []
        self.loads = Loads(self._start_extra, lambda known, reason: self.lost.append((known.order.model, reason)))

    def _start_extra(self):
        self.extra_count += 1
        return self.extra

    def add(self, model):
        return self.loads.add(order(model))

    def orders(self, *slots):
        """(slot's number, model) of each order."""
        return [(given.number, load.model) for given, load in self.loads.orders(slots)]

    def prove(self, model, worker):
        worker.loading = model
        self.loads.loaded(worker, Loaded(model, ""))


def order(model):
    return Load(model, f"model-{model}", 1, None)


@pytest.fixture
async def told():
    return Told()


async def test_one_worker_proves_then_the_others_load(told):
    answer = told.add(1)
    first, second, third = (slot(number) for number in range(3))
    assert told.orders(first, second, third) == [(0, 1)]
    assert told.orders(first, second, third) == []
    told.loads.loaded(first, Loaded(1, "", run_s={1: 0.01}))
    told.loads.settle([first, second, third], 3)
    assert answer.result().run_s == {1: 0.01}
    assert first.models == {1}
    assert told.orders(first, second, third) == [(1, 1), (2, 1)]


async def test_whoever_proves_a_model_chooses_its_variant_for_all(told):
    told.add(1)
    first, second = slot(0), slot(1)
    ((_, given),) = told.loads.orders([first])
    assert given.variant == ""
    told.loads.loaded(first, Loaded(1, "", Description("a", 1, [], [], {}, 8, (1,), CPU, "int8")))
    assert [load.variant for _, load in told.loads.orders([first, second])] == ["int8"]
    told.loads.died(second, -9)
    assert [load.variant for _, load in told.loads.orders([first, slot(1)])] == ["int8"]


async def test_a_variant_that_ends_the_process_is_not_tried_again_and_is_no_death_of_the_model(told):
    answer = told.add(1)
    for number, variant in enumerate(("int8", "fp16")):
        worker = slot(number)
        told.orders(worker)
        worker.trying = variant
        told.loads.died(worker, -6)
    proving = slot(2)
    ((_, given),) = told.loads.orders([proving])
    reason = "the process that tried it ended with status -6; see the log"
    assert given.without == {"int8": reason, "fp16": reason}
    told.loads.died(proving, -6)
    assert not answer.done()  # the first death over fp32
    told.orders(slot(3))


async def test_who_has_answered_tries_nothing_any_more(told):
    told.add(1)
    worker = slot(0)
    told.orders(worker)
    worker.trying = "int8"
    told.loads.loaded(worker, Loaded(1, ""))
    assert worker.trying == ""


async def test_decoders_load_nothing(told):
    told.add(1)
    assert told.orders(slot(0, role="decode"), slot(1, role="run")) == [(1, 1)]


async def test_whoever_has_least_proves(told):
    told.add(3)
    assert told.orders(slot(0, 1, 2), slot(1, 1), slot(2, 1, 2)) == [(1, 3)]


async def test_a_worker_without_which_a_model_is_missed_proves_nothing(told):
    told.add(3)
    assert told.orders(slot(0, 1), slot(1, 1, 2)) == [(0, 3)]


async def test_beside_a_worker_that_loads_the_last_free_one_goes_on_serving(told):
    """Even if what is being loaded has been unloaded meanwhile."""
    first, second = slot(0, 1, 2), slot(1, 1)
    told.loads.add(order(2))
    told.prove(2, first)
    assert told.orders(first, second) == [(1, 2)]
    told.loads.remove(2)
    first.models.discard(2)
    told.add(3)
    assert told.orders(first, second) == []
    assert told.extra_count == 0
    told.loads.loaded(second, Loaded(2, ""))
    assert told.orders(first, second) == [(0, 3)]


async def test_where_each_is_needed_an_extra_one_proves():
    told = Told(extra=slot(-2, extra=True))
    answer = told.add(3)
    first, second = slot(0, 1), slot(1, 2)
    assert told.orders(first, second) == [(-2, 3)]
    told.add(4)
    assert told.orders(first, second, told.extra) == []  # one at a time
    assert told.extra_count == 1
    told.loads.loaded(told.extra, Loaded(3, ""))
    told.loads.settle([first, second, told.extra], 2)
    assert not answer.done()  # it does not serve
    assert (0, 3) in told.orders(first, second)
    told.loads.loaded(first, Loaded(3, ""))
    told.loads.settle([first, second], 2)
    assert answer.done()


async def test_no_extra_one_is_started_where_a_worker_will_be_free_soon(told):
    told.add(1)
    told.add(2)
    only = slot(0)
    assert told.orders(only) == [(0, 1)]
    assert told.orders(only) == []
    assert told.orders() == []
    assert told.extra_count == 0


async def test_an_extra_one_that_cannot_be_started_is_asked_for_again(told):
    told.add(2)
    assert told.orders(slot(0, 1)) == []
    assert told.orders(slot(0, 1)) == []
    assert told.extra_count == 2


async def test_one_model_is_proved_after_the_other_where_both_workers_are_needed(told):
    told.add(2)
    told.add(3)
    first, second = slot(0, 1), slot(1, 1)
    assert told.orders(first, second) == [(0, 2)]
    assert told.extra_count == 0
    told.loads.loaded(first, Loaded(2, ""))
    assert told.orders(first, second) == [(1, 3)]


@pytest.mark.parametrize(("count", "at_once"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4)])
async def test_half_of_those_that_serve_load_at_once_and_at_least_one(told, count, at_once):
    told.add(2)
    told.prove(2, slot(-5))
    assert len(told.orders(*(slot(number, 1) for number in range(count)))) == at_once


async def test_a_refusal_is_the_answer_and_is_forgotten(told):
    answer = told.add(1)
    worker = slot(0)
    told.orders(worker)
    told.loads.loaded(worker, Loaded(1, "a golden differs"))
    assert answer.result() == Loaded(1, "a golden differs")
    assert worker.models == set()
    assert not worker.refused
    assert told.orders(worker) == []
    again = told.add(2)
    assert told.orders(worker) == [(0, 2)]
    assert not again.done()


async def test_what_is_removed_is_not_loaded_and_its_late_proof_is_nobodys(told):
    answer = told.add(1)
    worker = slot(0)
    told.orders(worker)
    told.loads.remove(1)
    assert answer.cancelled()
    told.loads.loaded(worker, Loaded(1, ""))
    assert worker.loading is None
    assert worker.models == set()
    told.loads.remove(1)


async def test_two_deaths_over_a_proof_refuse_the_model(told):
    answer = told.add(1)
    for number, status in ((0, -6), (1, -9)):
        assert not answer.done()
        worker = slot(number)
        assert told.orders(worker) == [(number, 1)]
        told.loads.died(worker, status)
    assert answer.result().refused == (
        "the process that loads it ended twice, the last time with status -9; see the log"
    )
    assert told.orders(slot(2)) == []


async def test_deaths_over_other_things_refuse_nothing(told):
    answer = told.add(1)
    idle, busy = slot(0), slot(1)
    told.loads.died(idle, -9)
    for _ in range(3):
        told.orders(busy)
        busy.batches.append(Batch(None, [], 0, 0.0, 0.0))  # had before the order to load
        told.loads.died(busy, -9)
        busy = slot(1)
    assert not answer.done()
    assert told.orders(slot(2)) == [(2, 1)]


async def test_workers_with_models_load_beside_their_batches(told):
    told.add(1)
    serving, other, running = slot(0), slot(1), slot(2)
    running.role = "run"
    told.prove(1, serving)
    told.prove(1, other)
    told.prove(1, running)
    told.add(2)
    (ordered,) = told.loads.orders([serving, other])
    assert ordered[1].gently
    assert serving.has_room(1, 0.0)
    serving.loading_since, serving.busy_s = 5.0, 0.9 * BESIDE_S
    assert serving.has_room(1, 5.0 + BESIDE_S - 1)
    assert not serving.has_room(1, 5.0 + BESIDE_S)  # its batches have left the load no time
    serving.busy_s = 0.1 * BESIDE_S
    assert serving.has_room(1, 5.0 + BESIDE_S)  # they have left it some: it is long
    serving.loading = None
    (ordered, *_) = told.loads.orders([running, serving])
    assert ordered[0] is running
    assert ordered[1].gently
    running.busy_s = BESIDE_S
    assert running.has_room(1, BESIDE_S)  # on a GPU a load need not wait for idle time


@pytest.mark.parametrize("hangs", ["", "a batch", "a load"])
async def test_a_model_at_whose_load_a_worker_died_that_had_a_batch_too_is_loaded_apart(told, hangs):
    """Beside batches a load may have had too little time."""
    told.add(1)
    workers = slot(0), slot(1)
    for worker in workers:
        told.prove(1, worker)
    answer = told.add(2)
    (ordered,) = told.loads.orders(workers)
    assert ordered[1].gently
    ordered[0].hangs = hangs
    if hangs != "a load":
        ordered[0].batches.append(Batch(None, [], 0, 0.0, 0.0))
    told.loads.died(ordered[0], -11)
    left = workers[1 - ordered[0].number]
    for number in (3, 4):
        assert not answer.done()  # the first death may have been the batch's
        worker = slot(number)
        assert told.orders(left, worker)[0] == (number, 2)
        assert worker.away(0.0)
        told.loads.died(worker, -11)
    assert "ended twice" in answer.result().refused


async def test_two_deaths_over_a_proven_model_withhold_it(told):
    told.add(1)
    serving = slot(0)
    told.prove(1, serving)
    told.loads.settle([serving], 2)
    for number in (1, 2):
        worker = slot(number)
        assert told.orders(serving, worker) == [(number, 1)]
        told.loads.died(worker, -9)
    assert told.orders(serving, slot(3)) == []
    told.loads.settle([serving, slot(3)], 2)
    assert not told.lost
    told.loads.settle([slot(3)], 2)
    assert [model for model, _ in told.lost] == [1]
    assert told.orders(slot(3)) == []


async def test_a_proof_in_between_forgives_a_death(told):
    told.add(1)
    for number in range(4):
        worker = slot(number)
        told.orders(worker)
        told.loads.died(worker, -9)
        told.prove(1, slot(9))
    assert told.orders(slot(5)) == [(5, 1)]


async def test_who_refuses_what_another_proved_is_not_asked_again(told):
    told.add(1)
    told.prove(1, slot(0))
    odd = slot(1)
    assert told.orders(odd) == [(1, 1)]
    told.loads.loaded(odd, Loaded(1, "bad_alloc"))
    assert odd.refused == {1: "bad_alloc"}
    assert told.orders(odd) == []


async def test_a_model_is_lost_when_every_worker_refuses_it(told):
    told.add(1)
    told.prove(1, gone := slot(0))
    told.loads.settle([gone], 2)
    first, second = slot(1), slot(2)
    for worker in (first, second):
        worker.loading = 1
        told.loads.loaded(worker, Loaded(1, f"no, says {worker.number}"))
        told.loads.settle([first, second], 2)
    assert told.lost == [(1, "no, says 1")]


@pytest.mark.parametrize("living", [[], [1]])
async def test_no_model_is_lost_while_a_worker_is_being_replaced(told, living):
    told.add(1)
    told.prove(1, slot(0))
    slots = [slot(number) for number in living]
    for refusing in slots:
        refusing.refused[1] = "bad_alloc"
    told.loads.settle(slots, 2)
    assert not told.lost


async def test_no_model_is_lost_while_a_worker_loads_it(told):
    told.add(1)
    told.prove(1, slot(0))
    refusing, loading = slot(1), slot(2)
    refusing.refused[1] = "bad_alloc"
    loading.loading = 1
    told.loads.settle([refusing, loading], 1)
    assert not told.lost


def version(model, number):
    return Load(model, "one", number, None)


async def test_a_version_takes_over_callers_when_all_who_serve_have_it(told):
    """One worker could not answer what several did."""
    first = told.loads.add(version(1, 1))
    workers = [slot(number) for number in range(3)]
    told.prove(1, workers[0])
    told.loads.settle(workers, 3)
    assert first.done()  # nobody was answered before
    second, other = told.loads.add(version(2, 2), lambda: True), told.add(3)
    for worker in workers[:2]:
        worker.models.add(1)
        told.prove(2, worker)
    told.prove(3, workers[0])
    told.loads.settle(workers[:2], 3)
    assert second.done()  # the third is being replaced
    assert other.done()  # it has no callers


async def test_a_version_whose_callers_have_been_given_to_another_meanwhile_waits_for_nobody(told):
    workers, takes_over = [slot(number, 1) for number in range(3)], [True]
    waiting = told.loads.add(version(2, 2), lambda: takes_over[0])
    told.prove(2, workers[0])
    told.loads.settle(workers, 3)
    assert not waiting.done()
    takes_over[0] = False
    told.loads.settle(workers, 3)
    assert waiting.done()


@pytest.mark.parametrize("why", ["has it", "refuses it", "has died", "is withheld"])
async def test_a_version_waits_for_the_last_worker_that_serves(told, why):
    told.loads.add(version(1, 1))
    workers = [slot(number, 1) for number in range(2)]
    told.prove(1, workers[0])
    told.loads.settle(workers, 2)
    second = told.loads.add(version(2, 2), lambda: True)
    told.prove(2, workers[0])
    told.loads.settle(workers, 2)
    assert not second.done()
    match why:
        case "has it":
            told.prove(2, workers[1])
        case "refuses it":
            workers[1].loading = 2
            told.loads.loaded(workers[1], Loaded(2, "bad_alloc"))
        case "has died":
            workers[1] = slot(1)
        case "is withheld":
            for _ in range(2):
                workers[1].loading = 2
                told.loads.died(workers[1], -6)
    told.loads.settle(workers, 2)
    assert second.result() == Loaded(2, "")


async def test_what_only_an_extra_worker_took_is_refused_by_those_who_serve():
    told = Told(extra=slot(-2, extra=True))
    answer = told.add(2)
    serving = slot(0, 1)
    told.orders(serving)
    told.loads.loaded(told.extra, Loaded(2, ""))
    told.orders(serving)
    told.loads.loaded(serving, Loaded(2, "no room beside the other"))
    told.loads.settle([serving], 1)
    assert answer.result() == Loaded(2, "no room beside the other")
    assert not told.lost
