"""The batching rule, with a clock of its own."""

import pytest

from taxon.service.scheduling.batching import best_bucket, insert, take
from tests.service.scheduling.jobs import LATE, job, jobs

# Batches answer twice as many per second.
GAINING = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.030}
# Batches gain nothing.
FLAT = {1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}


@pytest.mark.parametrize(
    ("waiting_count", "run_s", "bucket"),
    [
        (1, GAINING, 1),
        (2, GAINING, 2),
        (3, GAINING, 4),  # one place of padding beats a run of two and a run of one
        (8, GAINING, 8),
        (50, GAINING, 8),
        (50, FLAT, 1),  # a larger batch would only make its first inputs wait
        (5, {1: 0.010, 4: 0.015, 8: 0.060}, 4),
        (8, {1: 0.010, 8: 0.0795}, 1),  # half a per cent more is not worth the longer wait
    ],
)
def test_the_bucket_that_answers_most_per_second(waiting_count, run_s, bucket):
    assert best_bucket(waiting_count, run_s) == bucket


@pytest.mark.parametrize(("limit_s", "bucket"), [(1.0, 8), (0.016, 4), (0.015, 2), (0.001, 1)])
def test_no_bucket_takes_longer_than_its_limit_if_any_is_as_fast(limit_s, bucket):
    assert best_bucket(50, GAINING, limit_s) == bucket


def test_takes_the_oldest_and_leaves_the_rest():
    waiting = jobs(*[LATE] * 11)
    taken = take(waiting, 0.0, GAINING)
    assert list(taken.batch) == waiting[:8]
    assert taken.rest == waiting[8:]
    assert taken.bucket == 8


def test_drops_what_would_be_answered_too_late():
    waiting = jobs(LATE, 5.0, LATE, 10.005, LATE)
    taken = take(waiting, 10.0, GAINING)
    assert list(taken.batch) == [waiting[0], waiting[2], waiting[4]]
    assert list(taken.expired) == [waiting[1], waiting[3]]  # the fourth would end after its deadline
    assert taken.rest == []


def test_a_probe_is_run_against_the_estimates_but_not_after_its_deadline():
    hopeful, late = job(10.005, probe=True), job(9.0, probe=True)
    taken = take([hopeful, late], 10.0, GAINING)
    assert list(taken.batch) == [hopeful]
    assert list(taken.expired) == [late]


def test_a_batch_is_no_larger_than_its_most_urgent_input_can_wait_for():
    waiting = jobs(LATE, 10.020, *[LATE] * 6)
    taken = take(waiting, 10.0, GAINING)
    assert list(taken.batch) == waiting[:4]  # eight take 0.030 s
    assert not taken.expired


def test_an_input_behind_the_largest_batch_does_not_shrink_it():
    waiting = jobs(*[LATE] * 8, 10.020)
    assert take(waiting, 10.0, GAINING).bucket == 8


def test_nothing_waiting_gives_an_empty_batch():
    assert not take([], 0.0, GAINING).batch
    assert not take(jobs(1.0), 2.0, GAINING).batch


@pytest.mark.parametrize(
    ("priorities", "order"), [((0, 0, 0), [0, 1, 2]), ((0, 2, 1), [2, 1, 0]), ((1, 0, 1), [0, 2, 1])]
)
def test_the_urgent_go_first(priorities, order):
    queue = []
    made = [job(priority=priority) for priority in priorities]
    for one in made:
        insert(queue, one)
    assert [made.index(one) for one in queue] == order


def test_an_input_that_runs_alone_has_a_batch_of_its_own():
    alone, others = job(decoding_bytes=1), jobs(*[LATE] * 3)
    assert list(take([alone, *others], 0.0, GAINING).batch) == [alone]
    assert list(take([others[0], alone, *others[1:]], 0.0, GAINING).batch) == others


def test_only_inputs_of_one_type_and_shape_share_a_batch():
    first, second = job(dtype="float32", shape=(2,)), job(dtype="float32", shape=(3,))
    third, fourth = job(dtype="float32", shape=(2,)), job(dtype="int32", shape=(2,))
    taken = take([first, second, third, fourth], 0.0, GAINING)
    assert list(taken.batch) == [first, third]
    assert taken.rest == [second, fourth]


def test_free_runners_share_a_short_queue():
    assert len(take(jobs(*[LATE] * 8), 0.0, GAINING, runner_count=2).batch) == 4
