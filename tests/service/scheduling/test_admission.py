"""Who is next, and who may come in: queues with a clock of their own."""

import math

import pytest

from taxon.service.errors import DeadlineTooShortError, NotServingError, QueueFullError
from taxon.service.scheduling.admission import PROBE_S, QUIET_S, Permits, Queues, retry_delay_s
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.estimates import Estimate
from taxon.service.scheduling.model_queue import HAND_OVER_S, ModelQueue
from tests.fakes import FakeClock
from tests.service.scheduling.jobs import job

RUN_S = {1: 0.010, 2: 0.015, 4: 0.025}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def queues(clock):
    return Queues(256, clock)


@pytest.fixture
def opened(queues, clock):
    def open_queue(run_s=RUN_S, model=1):
        estimates = {bucket: Estimate(seconds, clock) for bucket, seconds in run_s.items()}
        queue = ModelQueue(model, estimates, lambda size, dropped: None, clock)
        queues.add(queue)
        return queue

    return open_queue


@pytest.fixture
def admit(queues, clock):
    def admit_jobs(queue, count=1, remaining_s=1.0, workers=2, busy_s=0.0, **facts):
        for _ in range(count):
            coming = job(clock.now + remaining_s, model=queue.model, queued_at=clock.now, **facts)
            queues.admit(queue, coming, workers, busy_s)
            queue.insert(coming)
        return coming

    return admit_jobs


# Permits


def test_a_permit_is_held_until_its_call_ends_however_it_ends():
    permits = Permits(2, Board(1), 0, lambda: 0.0)

    def fail():
        with permits:
            assert permits.free_count == 0
            raise KeyError

    with permits, pytest.raises(KeyError):
        fail()
    assert permits.free_count == 2


def test_nobody_waits_for_a_permit():
    permits = Permits(1, Board(1), 0, lambda: 2.0)
    with permits, pytest.raises(QueueFullError) as failure, permits:
        pass
    error = failure.value
    assert (error.queued_count, error.max_queued_count) == (1, 1)
    assert 1.5 <= error.retry_s <= 3.0
    with permits:
        pass


def test_all_fronts_share_the_permits():
    board = Board(2)
    first, second = (Permits(2, board, front, lambda: 0.0) for front in (0, 1))
    with first, second:
        for permits in (first, second):
            assert permits.free_count == 0
            with pytest.raises(QueueFullError), permits:
                pass
    board.hold(1, 2)
    board.forget(1)  # a front that dies gives back what it held
    assert first.free_count == 2


# Who may come in


def test_an_idle_server_refuses_only_what_it_cannot_do_in_time(opened, admit):
    queue = opened()
    admit(queue, remaining_s=0.011)
    with pytest.raises(DeadlineTooShortError) as failure:
        admit(queue, remaining_s=0.009)
    assert failure.value.predicted_s == pytest.approx(0.010 + HAND_OVER_S)


def test_a_wait_longer_than_the_deadline_is_refused_at_once(opened, admit):
    queue = opened()
    with pytest.raises(QueueFullError) as failure:
        admit(queue, count=1000, remaining_s=0.5)
    # 0.5 s of two workers that answer an input in 6.4 ms, less the margin and a batch of the caller's own
    assert 110 < len(queue.ordinary) < 160
    assert 0.75 * 0.02 <= failure.value.retry_s < 0.1  # the shortest delay, less its jitter
    admit(queue, remaining_s=5.0)


def test_a_refusal_tells_what_waits_and_what_is_let_in_at_most(opened, admit):
    queue = opened()
    with pytest.raises(QueueFullError) as failure:
        admit(queue, count=1000, remaining_s=0.5)
    assert failure.value.queued_count == len(queue.ordinary)
    assert failure.value.max_queued_count == 256


def test_what_the_workers_do_already_counts(opened, admit, clock):
    queue = opened()
    queue.probed_at = clock.now
    admit(queue, remaining_s=0.5, busy_s=0.4)
    with pytest.raises(QueueFullError):
        admit(queue, remaining_s=0.4, busy_s=0.4)


def test_a_batch_larger_than_the_deadline_allows_keeps_nobody_out(opened, admit):
    """A slow model whose batches gain nothing: eight at once would take longer than anybody waits."""
    queue = opened({1: 0.13, 2: 0.26, 4: 0.52, 8: 1.04})
    with pytest.raises(QueueFullError):
        admit(queue, count=100, remaining_s=1.0)
    assert len(queue.ordinary) >= 10  # (1 s - 0.13 s) of two workers is 13, less the margin


def test_more_workers_let_more_in(opened, admit):
    queue = opened()
    with pytest.raises(QueueFullError):
        admit(queue, count=1000, remaining_s=0.5, workers=8)
    assert len(queue.ordinary) > 450


def test_the_queues_of_other_models_count(opened, admit, clock):
    admit(opened({1: 0.4}, model=2), count=4, remaining_s=9.0)
    queue = opened()
    queue.probed_at = clock.now
    with pytest.raises(QueueFullError):
        admit(queue, remaining_s=0.5)


def test_nothing_comes_in_without_workers_or_while_closing(opened, admit):
    queue = opened()
    with pytest.raises(NotServingError, match="no worker is ready"):
        admit(queue, workers=0)
    queue.closing = True
    with pytest.raises(NotServingError, match="being unloaded"):
        admit(queue)


def test_retries_are_spread():
    delays = {retry_delay_s(1.0) for _ in range(50)}
    assert len(delays) > 40
    assert all(0.75 <= delay <= 1.5 for delay in delays)
    assert retry_delay_s(0.0) > 0


# Estimates that are wrong


def ran(queue, job, seconds):
    """What a worker would report of the run of one input."""
    taken = queue.take(queue.clock(), 1, large_room=math.inf)
    assert list(taken.batch) == [job]
    queue.learn(taken.batch, 1, 0.0, seconds)


def test_one_stall_locks_nobody_out(opened, admit):
    """A run of 10 ms took 2 s, because the machine stood still."""
    queue = opened()
    ran(queue, admit(queue), 2.0)
    ran(queue, admit(queue, remaining_s=0.1), 0.010)


def test_a_stall_of_many_runs_is_overcome_by_callers_who_are_let_in(opened, admit, clock):
    queue = opened()
    for _ in range(30):
        ran(queue, admit(queue, remaining_s=1000), 2.0)
    refused, let_in = 0, 0
    for _ in range(600):  # a minute of callers with 100 ms
        clock.now += 0.1
        try:
            coming = admit(queue, remaining_s=0.1)
        except DeadlineTooShortError:
            refused += 1
        else:
            let_in += 1
            ran(queue, coming, 0.010)
    assert refused
    assert let_in > 200


def test_a_stall_of_the_first_picture_ever_locks_nobody_out(opened, admit, clock):
    """What decoding takes is not proven at load: a first sample is all there is, and it may be anything."""
    queue = opened()
    admit(queue)
    queue.learn(queue.take(clock.now, 1, large_room=math.inf).batch, 1, 2.0, 0.010)
    let_in = 0
    for _ in range(600):
        clock.now += 0.1
        try:
            admit(queue, remaining_s=0.1)
        except DeadlineTooShortError:
            continue
        let_in += 1
        queue.learn(queue.take(clock.now, 1, large_room=math.inf).batch, 1, 0.002, 0.010)
    assert let_in > 200


def slow_by_estimate(queue):
    for estimate in queue.run_s.values():
        for _ in range(100):
            estimate.learn(2.0)
    queue._costs_until = -1e9


def test_one_caller_a_second_probes_what_the_estimates_refuse(opened, admit, clock):
    queue = opened()
    slow_by_estimate(queue)
    assert admit(queue, remaining_s=0.1).probe
    with pytest.raises(DeadlineTooShortError):
        admit(queue, remaining_s=0.1)
    clock.now += PROBE_S
    assert admit(queue, remaining_s=0.1).probe


def test_a_probe_is_let_in_against_a_queue_too(opened, admit):
    queue = opened()
    slow_by_estimate(queue)
    admit(queue, count=3, remaining_s=1000, workers=1)
    assert admit(queue, remaining_s=3.0, workers=1).probe
    with pytest.raises(QueueFullError):
        admit(queue, remaining_s=3.0, workers=1)


def test_nobody_probes_who_would_be_late_even_by_what_was_proven(opened, admit):
    queue = opened()
    slow_by_estimate(queue)
    with pytest.raises(DeadlineTooShortError):
        admit(queue, remaining_s=0.010)
    assert admit(queue, remaining_s=0.011).probe


def test_large_pictures_do_not_probe(opened, admit):
    with pytest.raises(DeadlineTooShortError):
        admit(opened(), remaining_s=0.05, decoding_bytes=1)


def test_who_fits_is_no_probe(opened, admit):
    assert not admit(opened()).probe


# Who is next


def test_models_share_worker_time_not_turns(queues, opened, admit, clock):
    slow, fast = opened({1: 0.1}), opened({1: 0.01}, model=2)
    admit(slow, count=40, remaining_s=100)
    admit(fast, count=60, remaining_s=100)
    turns = []
    for _ in range(44):
        queue, taken = queues.next_batch(1, {1, 2}, 0)
        queue.learn(taken.batch, 1, 0.0, queue.run_s[1].proven_s)
        turns.append(queue)
    assert turns.count(slow) == 4
    assert turns.count(fast) == 40


def test_idleness_earns_no_claim(queues, opened, admit):
    busy, idle = opened({1: 0.1}), opened({1: 0.1}, model=2)
    admit(busy, count=20, remaining_s=100)
    for _ in range(10):
        queue, taken = queues.next_batch(1, {1, 2}, 0)
        queue.learn(taken.batch, 1, 0.0, 0.1)
    admit(idle, count=10, remaining_s=100)
    turns = []
    for _ in range(6):
        queue, taken = queues.next_batch(1, {1, 2}, 0)
        queue.learn(taken.batch, 1, 0.0, 0.1)
        turns.append(queue)
    assert turns.count(idle) in (3, 4)


def test_a_model_that_comes_later_starts_level_with_the_others(queues, opened, admit):
    old = opened({1: 0.1})
    admit(old, count=20, remaining_s=100)
    for _ in range(10):
        queue, taken = queues.next_batch(1, {1, 2}, 0)
        queue.learn(taken.batch, 1, 0.0, 0.1)
    new = opened({1: 0.1}, model=2)
    assert new.used_s == pytest.approx(0.9)


def test_a_worker_gets_only_models_that_it_has(queues, opened, admit):
    admit(opened())
    assert queues.next_batch(1, {2}, 0) is None
    assert queues.next_batch(1, {1}, 0) is not None


def test_large_pictures_leave_a_worker_while_there_are_others(queues, opened, admit, clock):
    queue = opened()
    admit(queue)
    queues.next_batch(2, {1}, 0)
    admit(queue, count=2, decoding_bytes=1)
    _, taken = queues.next_batch(2, {1}, 0)
    assert len(taken.batch) == 1
    assert queues.next_batch(2, {1}, 1) is None
    clock.now += QUIET_S + 0.1  # no small picture for a while
    admit(queue, decoding_bytes=1)
    assert queues.next_batch(2, {1}, 1) is not None


def test_one_worker_alone_takes_large_pictures_too(queues, opened, admit):
    queue = opened()
    admit(queue)
    queues.next_batch(1, {1}, 0)
    admit(queue, decoding_bytes=1)
    assert queues.next_batch(1, {1}, 0) is not None


def test_decoding_counts_when_a_batch_is_chosen(queues, opened, admit):
    queue = opened({1: 0.010, 2: 0.0190})
    queue.decode_s.learn(0.1)  # the run's five per cent vanish beside it
    admit(queue, count=4)
    _, taken = queues.next_batch(1, {1}, 0)
    assert taken.bucket == 1


def test_a_free_worker_leaves_the_busy_ones_their_share(queues, opened, admit):
    """A short queue taken whole would make its last inputs wait while the next worker comes free."""
    queue = opened()
    admit(queue, count=4)
    _, taken = queues.next_batch(2, {1}, 0)
    assert len(taken.batch) == 2
    assert len(queue.ordinary) == 2


def test_what_waits_is_counted_and_can_be_emptied(queues, opened, admit):
    first, second = opened(), opened(model=2)
    coming = [admit(first), admit(first, decoding_bytes=1), admit(second)]
    assert queues.waiting_count == 3
    assert sorted(map(id, queues.empty())) == sorted(map(id, coming))
    assert queues.waiting_count == 0


def test_a_model_that_is_removed_is_neither_counted_nor_run(queues, opened, admit):
    queue = opened({1: 0.4})
    admit(queue, count=4, remaining_s=9.0)
    assert len(queues.remove(1)) == 4
    assert queues.next_batch(1, {1}, 0) is None
    assert queues.predicted_s(1, 0.0) == 0.0
