"""Who is next, and who may come in: lanes with a clock of their own."""

import pytest

from taxon.service.errors import DeadlineTooShortError, NotServingError, QueueFullError
from taxon.service.scheduling.admission import QUIET_S, Lane, Lanes, retry_delay_s
from taxon.service.scheduling.batching import Entry
from tests.fakes import FakeClock

RUN_S = {1: 0.010, 2: 0.015, 4: 0.025}


class Waiter:
    """Stands in for a future."""

    def cancelled(self):
        return False


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def lanes(clock):
    return Lanes(clock)


def opened(lanes, name="a", run_s=RUN_S):
    lane = Lane(name, 1, dict(run_s), lambda size, dropped: None)
    lanes.add(lane)
    return lane


def entry(clock, remaining_s=1.0, alone=False):
    return Entry(b"picture", clock.now + remaining_s, clock.now, Waiter(), alone=alone)


def admit(lanes, lane, clock, count=1, remaining_s=1.0, alone=False, workers=2):
    for _ in range(count):
        lanes.admit(lane, entry(clock, remaining_s, alone), workers, 0.0)


def test_an_idle_server_refuses_only_what_it_cannot_do_in_time(lanes, clock):
    lane = opened(lanes)
    admit(lanes, lane, clock, remaining_s=0.011)
    with pytest.raises(DeadlineTooShortError) as failure:
        admit(lanes, lane, clock, remaining_s=0.009)
    assert failure.value.predicted_s == pytest.approx(0.0105)


def test_a_wait_longer_than_the_deadline_is_refused_at_once(lanes, clock):
    lane = opened(lanes)
    with pytest.raises(QueueFullError) as failure:
        admit(lanes, lane, clock, count=1000, remaining_s=0.5)
    # 0.5 s of two workers that answer an input in 6.4 ms, less the margin and a batch of the caller's own
    assert 110 < len(lane.light) < 160
    assert 0.75 * 0.02 <= failure.value.retry_s < 0.1  # the shortest delay, less its jitter
    admit(lanes, lane, clock, remaining_s=5.0)


def test_a_batch_larger_than_the_deadline_allows_keeps_nobody_out(lanes, clock):
    """A slow model whose batches gain nothing: eight at once would take longer than anybody waits."""
    lane = opened(lanes, "slow", {1: 0.13, 2: 0.26, 4: 0.52, 8: 1.04})
    with pytest.raises(QueueFullError):
        admit(lanes, lane, clock, count=100, remaining_s=1.0)
    assert len(lane.light) >= 10  # (1 s - 0.13 s) of two workers is 13, less the margin


def test_more_workers_let_more_in(lanes, clock):
    lane = opened(lanes)
    with pytest.raises(QueueFullError):
        admit(lanes, lane, clock, count=1000, remaining_s=0.5, workers=8)
    assert len(lane.light) > 450


def test_the_queues_of_other_models_count(lanes, clock):
    admit(lanes, opened(lanes, "slow", {1: 0.4}), clock, count=4, remaining_s=9.0)
    with pytest.raises(QueueFullError):
        admit(lanes, opened(lanes), clock, remaining_s=0.5)


def test_nothing_comes_in_without_workers_or_while_closing(lanes, clock):
    lane = opened(lanes)
    with pytest.raises(NotServingError):
        admit(lanes, lane, clock, workers=0)
    lane.closing = True
    with pytest.raises(NotServingError):
        admit(lanes, lane, clock)


def test_models_share_worker_time_not_turns(lanes, clock):
    slow, fast = opened(lanes, "slow", {1: 0.1}), opened(lanes, "fast", {1: 0.01})
    models = {("slow", 1), ("fast", 1)}
    admit(lanes, slow, clock, count=40, remaining_s=100)
    admit(lanes, fast, clock, count=60, remaining_s=100)
    turns = []
    for _ in range(44):
        lane, taken = lanes.next_batch(1, 0, models)
        lane.learn(taken, 0.0, lane.run_s[1])
        turns.append(lane.name)
    assert turns.count("slow") == 4
    assert turns.count("fast") == 40


def test_idleness_earns_no_claim(lanes, clock):
    busy, idle = opened(lanes, "busy", {1: 0.1}), opened(lanes, "idle", {1: 0.1})
    models = {("busy", 1), ("idle", 1)}
    admit(lanes, busy, clock, count=20, remaining_s=100)
    for _ in range(10):
        lane, taken = lanes.next_batch(1, 0, models)
        lane.learn(taken, 0.0, 0.1)
    admit(lanes, idle, clock, count=10, remaining_s=100)
    turns = []
    for _ in range(6):
        lane, taken = lanes.next_batch(1, 0, models)
        lane.learn(taken, 0.0, 0.1)
        turns.append(lane.name)
    assert turns.count("idle") in (3, 4)


def test_a_worker_gets_only_models_that_it_has(lanes, clock):
    admit(lanes, opened(lanes), clock)
    assert lanes.next_batch(1, 0, {("b", 1)}) is None
    assert lanes.next_batch(1, 0, {("a", 1)}) is not None


def test_large_pictures_leave_a_worker_while_there_are_others(lanes, clock):
    lane, models = opened(lanes), {("a", 1)}
    admit(lanes, lane, clock)
    lanes.next_batch(2, 0, models)
    admit(lanes, lane, clock, count=2, alone=True)
    _, taken = lanes.next_batch(2, 0, models)
    assert len(taken.batch) == 1
    assert lanes.next_batch(2, 1, models) is None
    clock.now += QUIET_S + 0.1  # no small picture for a while
    admit(lanes, lane, clock, alone=True)
    assert lanes.next_batch(2, 1, models) is not None


def test_decoding_counts_when_a_batch_is_chosen(lanes, clock):
    lane = opened(lanes, run_s={1: 0.010, 2: 0.0190})
    lane.decode_s = 0.1  # the run's five per cent vanish beside it
    admit(lanes, lane, clock, count=4)
    _, taken = lanes.next_batch(1, 0, {("a", 1)})
    assert taken.bucket == 1


def test_retries_are_spread():
    delays = {retry_delay_s(1.0) for _ in range(50)}
    assert len(delays) > 40
    assert all(0.75 <= delay <= 1.5 for delay in delays)
    assert retry_delay_s(0.0) > 0


def test_a_free_worker_leaves_the_busy_ones_their_share(lanes, clock):
    """A short queue taken whole would make its last inputs wait while the next worker comes free."""
    lane = opened(lanes)
    admit(lanes, lane, clock, count=4)
    _, taken = lanes.next_batch(2, 0, {("a", 1)})
    assert len(taken.batch) == 2
    assert len(lane.light) == 2
