import math

import pytest

from taxon.service.scheduling.estimates import FADING_S, Estimate
from taxon.service.scheduling.model_queue import COSTS_KEPT_S, HAND_OVER_S, LARGE_PICTURE_S, ModelQueue
from tests.fakes import FakeClock
from tests.service.scheduling.jobs import job, jobs

RUN_S = {1: 0.010, 2: 0.012, 4: 0.016}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def queue(clock):
    estimates = {bucket: Estimate(seconds, clock) for bucket, seconds in RUN_S.items()}
    return ModelQueue(1, estimates, lambda size, dropped: None, clock)


def put(queue, *waiting):
    for one in waiting:
        queue.insert(one)
    return waiting


def take(queue, *, large_room=math.inf):
    return queue.take(queue.clock(), 1, large_room)


def test_the_oldest_go_first_and_the_rest_goes_on_waiting(queue):
    waiting = put(queue, *jobs(*[1e9] * 6))
    assert list(take(queue).batch) == list(waiting[:4])
    assert queue.waiting_count == 2
    assert list(take(queue).batch) == list(waiting[4:])
    assert queue.waiting_count == 0


def test_large_pictures_take_their_turn_by_age_and_run_alone(queue):
    old, large, young = job(queued_at=1.0), job(queued_at=2.0, decoding_bytes=1), job(queued_at=3.0)
    put(queue, young, large)
    assert list(take(queue).batch) == [large]
    put(queue, large)
    queue.discard(young)
    put(queue, old, young)
    assert list(take(queue).batch) == [old, young]


def test_a_large_picture_that_may_not_run_waits(queue):
    (large,) = put(queue, job(queued_at=1.0, decoding_bytes=1))
    (small,) = put(queue, job(queued_at=2.0))
    assert list(take(queue, large_room=-1).batch) == [small]
    assert queue.alone == [large]


@pytest.mark.parametrize("decoding_bytes", [0, 1])
def test_who_leaves_is_out_at_once(queue, decoding_bytes):
    staying, leaving = put(queue, job(decoding_bytes=decoding_bytes), job(decoding_bytes=decoding_bytes))
    assert queue.discard(leaving)
    assert not queue.discard(leaving)
    assert queue.waiting_count == 1
    assert list(take(queue).batch) == [staying]
    assert not queue.discard(staying)


def test_emptying_takes_everything(queue):
    waiting = put(queue, job(), job(decoding_bytes=1))
    assert set(queue.empty()) == set(waiting)
    assert queue.waiting_count == 0
    assert queue.backlog_s() == 0.0


def test_a_batch_costs_its_hand_over_its_run_and_the_decoding_of_each_input(queue, clock):
    assert queue.costs() == pytest.approx({bucket: HAND_OVER_S + seconds for bucket, seconds in RUN_S.items()})
    queue.decode_s.learn(0.005)
    clock.now += COSTS_KEPT_S
    assert queue.costs()[4] == pytest.approx(HAND_OVER_S + 0.016 + 4 * 0.005)


def test_what_waits_is_priced_by_the_best_batches(queue):
    put(queue, *jobs(*[1e9] * 10), job(decoding_bytes=1))
    assert queue.backlog_s() == pytest.approx(10 * (HAND_OVER_S + 0.016) / 4 + HAND_OVER_S + 0.010 + LARGE_PICTURE_S)


def expected_s(queue):
    taken = take(queue)
    return queue.expected_s(taken.batch, taken.bucket)


def test_what_a_batch_should_take(queue):
    put(queue, *jobs(1e9, 1e9))
    assert expected_s(queue) == pytest.approx(HAND_OVER_S + 0.012)
    put(queue, job(decoding_bytes=1))
    assert expected_s(queue) == pytest.approx(HAND_OVER_S + 0.010 + LARGE_PICTURE_S)


def learnt(queue):
    """Buckets whose estimates are no more what was proven."""
    return [bucket for bucket, seconds in RUN_S.items() if queue.run_s[bucket].seconds() != seconds]


@pytest.mark.parametrize("bucket", RUN_S)
def test_what_ran_teaches_the_size_that_ran(queue, bucket):
    """A batch of four shrank, since callers had left: it ran as a smaller one."""
    put(queue, *jobs(*[1e9] * 4))
    queue.learn(take(queue).batch, bucket, 0.0, 0.011)
    assert learnt(queue) == [bucket]


def test_inputs_that_had_to_be_run_one_by_one_teach_no_size(queue):
    put(queue, *jobs(*[1e9] * 4))
    queue.learn(take(queue).batch, 0, 0.004, 0.100)
    assert learnt(queue) == []
    assert queue.decode_s.seconds() == pytest.approx(0.001)
    assert queue.used_s == pytest.approx(0.104)  # the time was spent all the same


def test_large_pictures_teach_only_what_large_pictures_take(queue):
    put(queue, job(decoding_bytes=1))
    queue.learn(take(queue).batch, 1, 0.200, 0.010)
    assert queue.large_s.seconds() == pytest.approx(0.110)
    assert learnt(queue) == []
    assert queue.decode_s.seconds() == 0.0


def test_a_batch_changes_the_costs_at_once_and_fading_soon(queue, clock):
    before = queue.costs()[1]
    put(queue, job())
    queue.learn(take(queue).batch, 1, 0.0, 0.020)
    taught = queue.costs()[1]
    assert taught > before
    clock.now += FADING_S
    assert before < queue.costs()[1] < taught


def test_what_was_proven_stays_whatever_is_learnt(queue):
    proven_s = queue.proven_s
    assert proven_s == pytest.approx(HAND_OVER_S + 0.010)
    put(queue, job())
    queue.learn(take(queue).batch, 1, 2.0, 2.0)
    assert queue.proven_s == proven_s
