"""The batching rule with a clock of its own, and the thread around it with a model that counts."""

import asyncio
import threading

import numpy as np
import pytest

from taxon.service.errors import DeadlineTooShortError, InferenceFailedError, NotServingError
from taxon.service.scheduling.batching import Batcher, Entry, best_bucket, insert, take
from tests.fakes import FakeClock

LATE = 1e9
# Batches answer twice as many per second.
GAINING = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.030}
# Batches gain nothing.
FLAT = {1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}


class Waiter:
    """Stands in for a future."""

    def __init__(self, cancelled=False):
        self._cancelled = cancelled

    def cancelled(self):
        return self._cancelled


def entries(*deadlines: float, gone: tuple[int, ...] = ()) -> list[Entry]:
    return [
        Entry(np.full(2, index, np.float32), deadline, 0.0, Waiter(index in gone))
        for index, deadline in enumerate(deadlines)
    ]


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
    ],
)
def test_the_bucket_that_answers_most_per_second(waiting_count, run_s, bucket):
    assert best_bucket(waiting_count, run_s) == bucket


def test_takes_the_oldest_and_leaves_the_rest():
    waiting = entries(*[LATE] * 11)
    taken = take(waiting, 0.0, GAINING)
    assert list(taken.batch) == waiting[:8]
    assert taken.rest == waiting[8:]
    assert taken.bucket == 8


def test_drops_what_nobody_waits_for():
    waiting = entries(LATE, 5.0, LATE, 10.005, LATE, gone=(2,))
    taken = take(waiting, 10.0, GAINING)
    assert list(taken.batch) == [waiting[0], waiting[4]]
    assert list(taken.expired) == [waiting[1], waiting[3]]  # the fourth would end after its deadline
    assert taken.gone_count == 1
    assert taken.rest == []


def test_a_batch_is_no_larger_than_its_most_urgent_input_can_wait_for():
    waiting = entries(LATE, 10.020, *[LATE] * 6)
    taken = take(waiting, 10.0, GAINING)
    assert list(taken.batch) == waiting[:4]  # eight take 0.030 s
    assert not taken.expired


def test_nothing_waiting_gives_an_empty_batch():
    assert not take([], 0.0, GAINING).batch
    assert not take(entries(1.0), 2.0, GAINING).batch


class CountingModel:
    """Echoes the first value of each input; waits for `release`; fails where it is told."""

    def __init__(self):
        self.batches: list[list[float]] = []
        self.started = threading.Event()
        self.release = threading.Event()
        self.release.set()
        self.poison: float | None = None
        self.nan: float | None = None

    def __call__(self, batch):
        self.started.set()
        assert self.release.wait(10)
        self.batches.append(batch[:, 0].tolist())
        if self.poison in batch[:, 0]:
            raise RuntimeError("poisoned")
        scores = batch.copy()
        if self.nan is not None:
            scores[batch[:, 0] == self.nan] = np.nan
        return scores


@pytest.fixture
def model():
    return CountingModel()


@pytest.fixture
async def batcher(model):
    made = Batcher("test", model, GAINING, lambda size, dropped: None)
    yield made
    model.release.set()
    await asyncio.to_thread(made.close)


def number(value: float):
    return np.full(2, value, np.float32)


async def in_queue(batcher, count):
    while len(batcher._entries) < count:  # noqa: ASYNC110 - yields to the submitting tasks, waits for no clock
        await asyncio.sleep(0)


async def hold(batcher, model):
    """Occupies the model with input 0 until `release`."""
    model.release.clear()
    held = asyncio.create_task(batcher.submit(number(0), LATE))
    await asyncio.to_thread(model.started.wait, 10)
    return held


async def test_an_idle_model_runs_at_once_and_a_busy_one_batches(batcher, model):
    held = await hold(batcher, model)
    waiting = [asyncio.create_task(batcher.submit(number(value), LATE)) for value in range(1, 4)]
    await in_queue(batcher, 3)
    model.release.set()
    scored = await asyncio.gather(held, *waiting)
    assert model.batches == [[0.0], [1.0, 2.0, 3.0, 0.0]]  # padded to the bucket of four
    assert [one.scores[0] for one in scored] == [0, 1, 2, 3]
    assert [one.batch_size for one in scored] == [1, 3, 3, 3]
    assert scored[1].queue_s > 0


async def test_cancelled_and_expired_inputs_never_run(model):
    clock = FakeClock()
    dropped = []
    batcher = Batcher("test", model, GAINING, lambda size, count: dropped.append(count), clock)
    held = await hold(batcher, model)
    leaving = asyncio.create_task(batcher.submit(number(1), LATE))
    late = asyncio.create_task(batcher.submit(number(2), clock.now + 1))
    staying = asyncio.create_task(batcher.submit(number(3), LATE))
    await in_queue(batcher, 3)
    leaving.cancel()
    clock.now += 5
    await asyncio.sleep(0)
    model.release.set()
    await held
    assert (await staying).scores[0] == 3
    with pytest.raises(DeadlineTooShortError):
        await late
    await asyncio.to_thread(batcher.close)
    assert model.batches == [[0.0], [3.0]]
    assert sum(dropped) == 2


async def test_a_poisoned_input_fails_alone(batcher, model):
    model.poison = 2.0
    held = await hold(batcher, model)
    waiting = [asyncio.create_task(batcher.submit(number(value), LATE)) for value in range(1, 4)]
    await in_queue(batcher, 3)
    model.release.set()
    await held
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Scored", "InferenceFailedError", "Scored"]
    assert model.batches[1:] == [[1.0, 2.0, 3.0, 0.0], [1.0], [2.0], [3.0]]  # once together, once singly


async def test_scores_that_are_not_numbers_fail_their_input_alone(batcher, model):
    model.nan = 1.0
    held = await hold(batcher, model)
    waiting = [asyncio.create_task(batcher.submit(number(value), LATE)) for value in (1, 2)]
    await in_queue(batcher, 2)
    model.release.set()
    await held
    nan, good = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(nan, InferenceFailedError)
    assert good.scores[0] == 2


async def test_close_runs_what_waits(model):
    batcher = Batcher("test", model, FLAT, lambda size, dropped: None)
    held = await hold(batcher, model)
    waiting = asyncio.create_task(batcher.submit(number(1), LATE))
    await in_queue(batcher, 1)
    model.release.set()
    await asyncio.to_thread(batcher.close)
    assert [one.scores[0] for one in await asyncio.gather(held, waiting)] == [0, 1]


async def test_a_run_that_hangs_is_noticed_by_the_next_caller(model):
    clock, told = FakeClock(), []
    batcher = Batcher("test", model, FLAT, lambda size, dropped: None, clock, max_run_s=5, on_hang=told.append)
    held = await hold(batcher, model)
    clock.now += 6
    with pytest.raises(NotServingError, match="hangs"):
        await batcher.submit(number(1), LATE)
    assert told == [True]
    model.release.set()
    await held
    assert (await batcher.submit(number(1), LATE)).scores[0] == 1
    assert told == [True, False]
    await asyncio.to_thread(batcher.close)


@pytest.mark.parametrize(
    ("priorities", "order"), [((0, 0, 0), [0, 1, 2]), ((0, 2, 1), [2, 1, 0]), ((1, 0, 1), [0, 2, 1])]
)
def test_the_urgent_go_first(priorities, order):
    queue = []
    made = [Entry(np.zeros(2, np.float32), LATE, 0.0, Waiter(), priority) for priority in priorities]
    for entry in made:
        insert(queue, entry)
    assert [made.index(entry) for entry in queue] == order


def test_an_input_that_runs_alone_has_a_batch_of_its_own():
    alone = Entry(b"large", LATE, 0.0, Waiter(), alone=True)
    others = [Entry(b"small", LATE, 0.0, Waiter()) for _ in range(3)]
    assert list(take([alone, *others], 0.0, GAINING).batch) == [alone]
    assert list(take([others[0], alone, *others[1:]], 0.0, GAINING).batch) == others


def test_free_runners_share_a_short_queue():
    assert len(take(entries(*[LATE] * 8), 0.0, GAINING, runner_count=2).batch) == 4
