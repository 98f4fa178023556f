"""Who gets what when: batches, decoders, admission, callers who leave. See `FakeWorker`."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from taxon.bundle.picture_limits import PictureUndecodableError
from taxon.service.errors import DeadlineTooShortError, InferenceFailedError, NotServingError, QueueFullError
from taxon.service.scheduling.admission import MOST_DECODED
from taxon.service.workers.worker_protocol import Decode, Load, Run
from tests.service.fake_worker import SCORES
from tests.service.workers.pools import MANIFEST, job, tensors
from tests.waiting import until

# Batches


async def test_an_idle_worker_gets_an_input_at_once(opened):
    one = opened()
    model = await one.load()
    (asked,) = one.submit(job(model))
    (order,) = one.workers[0].told(Run)
    assert (order.model, order.bucket, order.inputs, order.deadlines) == (model, 1, [asked.input], [asked.deadline])
    one.workers[0].run(preprocess_s=0.003, inference_s=0.010)
    scored = asked.outcome
    np.testing.assert_array_equal(scored.scores, SCORES)
    assert (scored.preprocess_s, scored.inference_s, scored.batch_size) == (0.003, 0.010, 1)
    assert 0 <= scored.queue_s < 20
    assert one.batches == [(1, 0)]


async def test_what_comes_while_the_worker_is_busy_is_the_next_batch(opened):
    one = opened()
    model = await one.load()
    first, *waiting = one.submit(*(job(model) for _ in range(4)))
    assert len(one.workers[0].told(Run)) == 1
    assert one.pool.dispatcher.waiting_count == 3
    one.workers[0].run()
    order = one.workers[0].told(Run)[1]
    assert order.inputs == [asked.input for asked in waiting]
    assert order.bucket == 4  # padded
    rows = [np.array([value], np.float32) for value in range(3)]
    one.workers[0].run(*rows)
    assert [asked.outcome.scores[0] for asked in waiting] == [0, 1, 2]
    assert [asked.outcome.batch_size for asked in (first, *waiting)] == [1, 3, 3, 3]
    assert waiting[0].outcome.queue_s > 0
    assert one.batches == [(1, 0), (3, 0)]


async def test_inputs_go_to_the_emptiest_worker(opened):
    one = opened(workers=3)
    model = await one.load()
    one.submit(*(job(model) for _ in range(3)))
    assert [len(one.workers[number].owes) for number in range(3)] == [1, 1, 1]


async def test_an_input_that_failed_fails_alone(opened):
    one = opened()
    model = await one.load()
    first, bad, good = one.submit(*(job(model) for _ in range(3)))
    one.workers[0].run()
    one.workers[0].run(InferenceFailedError("the model failed on this input"), SCORES)
    assert isinstance(bad.outcome, InferenceFailedError)
    assert good.outcome.batch_size == 1
    assert first.outcome.batch_size == 1


async def test_inputs_whose_callers_left_are_counted_as_dropped(opened):
    one = opened()
    model = await one.load()
    one.submit(job(model))
    one.workers[0].run(DeadlineTooShortError(0.0, 0.0))
    assert one.batches == [(0, 1)]


async def test_what_has_waited_too_long_is_not_run(opened):
    one = opened()
    model = await one.load()
    _, late, good = one.submit(*(job(model) for _ in range(3)))
    late.deadline = time.monotonic() - 1
    one.workers[0].run()
    assert isinstance(late.outcome, DeadlineTooShortError)
    assert one.workers[0].owes == [one.workers[0].told(Run)[1]]
    assert one.workers[0].told(Run)[1].inputs == [good.input]
    assert one.batches == [(1, 0), (0, 1)]


async def test_a_worker_that_only_runs_has_the_next_batch_ready(opened):
    one = opened(decoders=1)
    model = await one.load()
    assert one.workers[0].role == "run"
    one.submit(*(tensors(model) for _ in range(3)))
    assert len(one.workers[0].owes) == 2
    assert one.pool.dispatcher.waiting_count == 1
    one.workers[0].run()
    assert len(one.workers[0].owes) == 2
    assert one.pool.dispatcher.waiting_count == 0


async def test_large_pictures_leave_a_worker_to_the_others(opened):
    one = opened(workers=2)
    model = await one.load()
    one.submit(job(model))
    next(worker for worker in one.workers.living if worker.owes).run()
    large = one.submit(*(job(model, decoding_bytes=1) for _ in range(2)))
    (free,) = [worker for worker in one.workers.living if not worker.owes]
    (small,) = one.submit(job(model))
    assert free.owes[0].inputs == [small.input]
    free.run()
    assert not free.owes
    (busy,) = [worker for worker in one.workers.living if worker.owes]
    busy.run()
    assert large[0].outcome.batch_size == 1
    assert len([worker for worker in one.workers.living if worker.owes]) == 1


async def test_large_pictures_wait_for_the_memory_to_decode_them(opened):
    one = opened(workers=4, max_decoding_bytes=100)
    model = await one.load()
    large = one.submit(*(job(model, decoding_bytes=60) for _ in range(2)))
    (busy,) = [worker for worker in one.workers.living if worker.owes]
    assert busy.owes[0].inputs == [large[0].input]
    one.submit(job(model, decoding_bytes=40))
    assert len([worker for worker in one.workers.living if worker.owes]) == 1  # first come, first served
    (small,) = one.submit(job(model))
    assert [worker.owes[0].inputs for worker in one.workers.living if worker.owes and worker is not busy] == [
        [small.input]
    ]
    busy.run()
    assert len([worker for worker in one.workers.living if worker.owes]) == 3


async def test_so_do_those_for_decoders_and_nobody_behind_them(opened):
    one = opened(decoders=3, max_decoding_bytes=100)
    model = await one.load()
    large = one.submit(*(job(model, decoding_bytes=60) for _ in range(2)))
    (small,) = one.submit(job(model))
    decoding = [worker.owes[0].inputs for worker in one.workers.living if worker.role == "decode" and worker.owes]
    assert decoding == [[large[0].input], [small.input]]
    next(worker for worker in one.workers.living if worker.owes).decode()
    decoding = [worker.owes[0].inputs for worker in one.workers.living if worker.role == "decode" and worker.owes]
    assert sorted(decoding) == sorted([[large[1].input], [small.input]])


async def test_large_pictures_leave_a_decoder_to_the_others(opened):
    one = opened(decoders=2)
    model = await one.load()
    one.submit(job(model))
    next(worker for worker in one.workers.living if worker.owes).decode()
    large = one.submit(*(job(model, decoding_bytes=1) for _ in range(2)))
    (small,) = one.submit(job(model))
    decoding = [worker.owes[0].inputs for worker in one.workers.living if worker.role == "decode" and worker.owes]
    assert sorted(decoding) == sorted([[large[0].input], [small.input]])


# Decoders


async def test_pictures_are_decoded_and_then_run(opened):
    one = opened(decoders=1)
    model = await one.load()
    runner, decoder = one.workers[0], one.workers[1]
    assert decoder.role == "decode"
    assert not decoder.told(Load)
    (asked,) = one.submit(job(model))
    encoded = asked.input
    (order,) = decoder.owes
    assert (order.pixels, order.inputs, order.deadlines) == (MANIFEST.pixels, [encoded], [asked.deadline])
    assert not runner.owes
    decoder.decode(seconds=0.005)
    assert runner.owes[0].inputs[0].shape == (2, 2, 3)
    assert runner.owes[0].inputs[0].offset == encoded.offset
    runner.run(preprocess_s=0.001)
    assert asked.outcome.preprocess_s == pytest.approx(0.006)


async def test_arrays_and_models_without_a_manifest_need_no_decoder(opened):
    one = opened(decoders=1)
    bundle, graph = await one.load(), await one.load("graph", manifest=None)
    one.submit(tensors(bundle), tensors(graph))
    assert [order.model for order in one.workers[0].owes] == [bundle, graph]
    assert not one.workers[1].told(Decode)


async def test_decoders_share_a_short_queue_and_get_few_at_once(opened):
    one = opened(decoders=2)
    model = await one.load()
    one.submit(*(job(model) for _ in range(20)))
    sizes = [len(one.workers[number].owes[0].inputs) for number in (1, 2)]
    assert sizes == [1, 1]
    one.workers[1].decode()
    assert len(one.workers[1].owes[0].inputs) == MOST_DECODED
    assert one.pool.dispatcher.waiting_count >= 20 - 3 - MOST_DECODED


async def test_pictures_of_two_models_are_not_decoded_by_one_order(opened):
    one = opened(decoders=1)
    first, second = await one.load("first"), await one.load("second", manifest=SimpleNamespace(pixels=object()))
    _, *others = one.submit(job(first), job(first), job(second))
    one.workers[1].decode()
    assert one.workers[1].owes[0].inputs == [others[0].input]
    one.workers[1].decode()
    assert one.workers[1].owes[0].inputs == [others[1].input]
    assert one.workers[1].owes[0].pixels is not MANIFEST.pixels


async def test_a_picture_that_cannot_be_decoded_is_never_run(opened):
    one = opened(decoders=1)
    model = await one.load()
    (asked,) = one.submit(job(model))
    one.workers[1].decode(PictureUndecodableError("damaged", "PNG"))
    assert isinstance(asked.outcome, PictureUndecodableError)
    assert not one.workers[0].owes


async def test_without_a_decoder_nothing_is_served(opened):
    one = opened(decoders=1)
    model = await one.load()
    assert one.pool.serving_count == 1
    (decoding, waiting) = one.submit(job(model), job(model))
    one.workers[1].die(-9)
    assert isinstance(decoding.outcome, NotServingError)
    assert isinstance(waiting.outcome, NotServingError)
    assert one.pool.serving_count == 0
    with pytest.raises(NotServingError):
        one.submit(tensors(model))
    await until(lambda: one.pool.serving_count == 1)
    one.submit(job(model))
    assert one.workers[1].owes


async def test_what_waits_for_another_decoder_goes_on_waiting_when_one_dies(opened):
    one = opened(decoders=2)
    model = await one.load()
    dying, living, waiting = one.submit(*(job(model) for _ in range(3)))
    one.workers[1].die(-9)
    assert isinstance(dying.outcome, NotServingError)
    assert not living.outcomes
    one.workers[2].decode()
    assert one.workers[2].owes[0].inputs == [waiting.input]


async def test_what_waits_for_decoders_counts_when_somebody_wants_in(opened):
    one = opened(decoders=1)
    model = await one.load()
    one.submit(job(model))
    one.workers[1].decode(seconds=0.1)
    one.workers[0].run()
    one.submit(*(job(model) for _ in range(20)))
    assert one.pool.dispatcher.predicted_wait_s() > 1.5
    late = [job(model, time.monotonic() + 1.0) for _ in range(2)]  # the first may be a probe
    with pytest.raises(QueueFullError):
        one.submit(*late)
    one.submit(job(model))


async def test_what_decoders_take_is_not_charged_to_those_who_run(opened):
    """Else batches would look as if they gained nothing, and a GPU as if it were as slow as its decoders."""
    one = opened(decoders=1)
    model = await one.load()
    for _ in range(3):
        one.submit(job(model))
        one.workers[1].decode(seconds=1.0)
        one.workers[0].run(preprocess_s=0.0001)
    assert one.pool.dispatcher._queues.get(model).costs()[4] < 0.05


async def test_a_large_picture_that_was_decoded_is_run_with_others(opened):
    one = opened(decoders=1)
    model = await one.load()
    one.submit(tensors(model), tensors(model))  # one runs, one is ready
    large, small = one.submit(job(model, decoding_bytes=1), job(model))
    one.workers[1].decode()
    one.workers[1].decode()
    one.workers[0].run()
    assert one.workers[0].told(Run)[-1].inputs == [large.input, small.input]


async def test_what_decoding_a_large_picture_takes_counts_when_one_wants_in(opened):
    one = opened(decoders=1)
    model = await one.load()
    one.submit(job(model, time.monotonic() + 0.15, decoding_bytes=1))
    one.workers[1].decode(seconds=2.0)
    with pytest.raises(DeadlineTooShortError):
        one.submit(job(model, time.monotonic() + 0.15, decoding_bytes=1))
    one.submit(job(model, time.monotonic() + 0.15))


# Who may come in


async def test_nobody_comes_in_for_a_model_that_is_not_there_or_without_workers(opened):
    one = opened()
    with pytest.raises(NotServingError):
        one.submit(job(77))
    model = await one.load()
    one.workers[0].die()
    with pytest.raises(NotServingError, match="no worker is ready"):
        one.submit(job(model))


async def test_the_wait_is_told_by_what_runs_and_what_waits(opened):
    one = opened()
    model = await one.load(run_s={1: 10.0})
    assert one.pool.dispatcher.predicted_wait_s() == 0.0
    one.submit(job(model))
    assert 5 < one.pool.dispatcher.predicted_wait_s() <= 10.01
    one.submit(job(model))
    assert 15 < one.pool.dispatcher.predicted_wait_s() <= 20.02
    with pytest.raises(QueueFullError):
        one.submit(job(model, time.monotonic() + 25), job(model, time.monotonic() + 25))


async def test_a_long_queue_is_no_reason_to_refuse_who_can_wait(opened):
    one = opened()
    model = await one.load(run_s={1: 0.2})
    one.submit(*(job(model) for _ in range(10)))
    assert one.pool.dispatcher.waiting_count == 9


# Callers who leave


async def test_who_leaves_the_queue_is_out_at_once(opened):
    one = opened()
    model = await one.load()
    running, leaving, staying = one.submit(*(job(model) for _ in range(3)))
    one.pool.dispatcher.leave(leaving)
    assert leaving.outcome is None
    assert one.pool.dispatcher.waiting_count == 1
    assert one.batches == [(0, 1)]
    one.workers[0].run()
    assert one.workers[0].owes[0].inputs == [staying.input]
    assert running.outcome.batch_size == 1
    assert leaving.outcome is None


async def test_who_leaves_while_everything_hangs_does_not_pile_up(opened):
    one = opened()
    model = await one.load()
    one.submit(job(model))
    for _ in range(100):
        (leaving,) = one.submit(job(model))
        one.pool.dispatcher.leave(leaving)
    assert one.pool.dispatcher.waiting_count == 0
    assert one.pool.dispatcher.predicted_wait_s() < 0.1


async def test_who_leaves_before_a_decoder_is_free_is_out_at_once(opened):
    one = opened(decoders=1)
    model = await one.load()
    _, leaving = one.submit(job(model), job(model))
    one.pool.dispatcher.leave(leaving)
    assert leaving.outcome is None
    assert one.pool.dispatcher.waiting_count == 0
    assert one.batches == [(0, 1)]


async def test_whose_input_is_worked_on_is_told_when_that_is_over(opened):
    one = opened()
    model = await one.load()
    (running,) = one.submit(job(model))
    one.pool.dispatcher.leave(running)
    assert not running.outcomes
    one.workers[0].run(DeadlineTooShortError(0.0, 0.0))
    assert isinstance(running.outcome, DeadlineTooShortError)


# Copies, for which nobody waits


def copied(model):
    return job(model, background=True)


async def test_a_copy_comes_in_only_where_a_worker_stays_idle(opened):
    one = opened(workers=3)
    model = await one.load()
    one.submit(copied(model))
    one.submit(job(model))
    with pytest.raises(QueueFullError, match="idle"):
        one.submit(copied(model))
    (asked,) = one.submit(job(model))  # whoever asks himself has the last one
    assert [len(one.workers[number].owes) for number in range(3)] == [1, 1, 1]
    for number in range(3):
        one.workers[number].run()
    assert asked.outcome.batch_size == 1
    one.submit(copied(model))


async def test_a_single_worker_takes_a_copy_when_it_has_nothing_else(opened):
    one = opened()
    model = await one.load()
    one.submit(copied(model))
    with pytest.raises(QueueFullError):
        one.submit(copied(model))
    one.submit(job(model), job(model))
    one.workers[0].run()
    with pytest.raises(QueueFullError):
        one.submit(copied(model))


async def test_a_large_copy_never_comes_in(opened):
    one = opened(workers=3)
    model = await one.load()
    with pytest.raises(QueueFullError):
        one.submit(job(model, background=True, decoding_bytes=1))


async def test_a_copy_that_ends_its_worker_is_not_run_again(opened):
    one = opened(workers=2)
    model = await one.load()
    (held,) = one.submit(copied(model))
    (dead,) = [worker for worker in one.workers.living if worker.owes]
    dead.die(-9)
    assert isinstance(held.outcome, NotServingError)
    assert not [worker for worker in one.workers.living if worker.told(Run)]
