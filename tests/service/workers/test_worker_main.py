"""What a worker does with its orders, in this process, on real models and shared memory."""

import os
import socket
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto

from taxon.bundle import pixels
from taxon.bundle.manifest import Distribution
from taxon.bundle.picture_limits import PictureTooLargeError, PictureUndecodableError
from taxon.service.errors import DeadlineTooShortError, InferenceFailedError
from taxon.service.runtime.description import GraphConfig
from taxon.service.runtime.device import CPU, Device
from taxon.service.scheduling.arena import Arena, ArenaView, Input
from taxon.service.workers.channel import socket_pair
from taxon.service.workers.worker_main import Worker, received, serve
from taxon.service.workers.worker_protocol import (
    Decode,
    Decoded,
    Done,
    Load,
    Loaded,
    Run,
    Trying,
    Unload,
    WorkerSettings,
    pack,
)
from tests.fakes import COLORS, picture, toy_bundle
from tests.keys import write_keys
from tests.tensor_models import simple

RED, GREEN, BLUE = (picture(color) for color in COLORS.values())
LATER = 1e9


@pytest.fixture
def arena():
    made = Arena(2**20)
    yield made
    made.close()


def worker_of(models, arena, **changes):
    settings = {
        "models": str(models),
        "variant": "fp32",
        "device": Device(CPU),
        "buckets": (1, 2, 4),
        "max_batch_size": 128,
        "max_picture_bytes": 100_000,
        "max_picture_pixels": 1_000_000,
        "log_format": "json",
        "log_level": "info",
    }
    return Worker(WorkerSettings(**settings | changes), [ArenaView(os.dup(arena.descriptor))])


@pytest.fixture
def worker(models, arena):
    made = worker_of(models, arena)
    assert not made.load(Load(1, "colors", 1, None)).refused
    return made


def put(arena, payload, room=0):
    """An input in the arena."""
    if isinstance(payload, np.ndarray):
        size, dtype, shape = payload.nbytes, payload.dtype, payload.shape
    else:
        size, dtype, shape = len(payload), None, ()
    offset = arena.allocate(max(size, room))
    arena.write(offset, payload)
    return Input(0, offset, size, dtype, shape)


def order(*inputs, bucket=4, deadlines=None, model=1):
    return Run(model, bucket, list(inputs), deadlines or [LATER] * len(inputs))


def run(worker, given):
    return worker.answer(worker.gather(given))


class Counting:
    """Stands for a model: notes what it runs."""

    def __init__(self, worker, model=1):
        self.batches = []
        self._run = worker._models[model].run
        worker._models[model] = worker._models[model]._replace(run=self)

    def __call__(self, batch):
        self.batches.append(len(batch))
        return self._run(batch)


# Loading


def test_a_bundle_is_proved_and_described(models, arena):
    loaded = worker_of(models, arena).load(Load(7, "colors", 1, None))
    assert (loaded.model, loaded.refused) == (7, "")
    assert loaded.manifest.labels == tuple(COLORS)
    assert (loaded.description.name, loaded.description.version) == ("colors", 1)
    assert list(loaded.run_s) == [1, 2, 4]
    assert all(seconds > 0 for seconds in loaded.run_s.values())
    assert loaded.largest_difference < 1e-4


def test_brightness_is_told_where_the_bundle_says_how_bright_validation_is(worker, models, arena):
    """Place by place, of what was run; elsewhere nobody would compare."""
    toy_bundle(models, "watched", distributions={"brightness": Distribution(edges=(0.5,), counts=(1, 0))})
    assert not worker.load(Load(2, "watched", 1, None)).refused
    black, white = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    left = put(arena, black)
    arena.abandon(left.offset)
    inputs = left, put(arena, black), put(arena, white)
    assert run(worker, order(*inputs, model=2)).brightness == {1: 0.0, 2: 1.0}
    assert run(worker, order(put(arena, white))).brightness == {}


def test_a_graph_is_proved_and_described(tmp_path, arena):
    simple(tmp_path)
    worker = worker_of(tmp_path, arena)
    loaded = worker.load(Load(7, "simple", 1, GraphConfig()))
    assert (loaded.refused, loaded.manifest) == ("", None)
    assert loaded.description.max_batch_size == 128
    row = np.zeros((), [("f0", "<i4", (16,)), ("f1", "<i4", (16,))])
    row["f0"], row["f1"] = 5, 3
    done = run(worker, order(put(arena, row), model=7))
    assert done.outcomes[0]["f0"].tolist() == [8] * 16
    assert done.outcomes[0]["f1"].tolist() == [2] * 16


def test_what_may_not_be_served_is_refused_with_its_reason(models, arena):
    toy_bundle(models, "shifted", golden_shift=0.1)
    worker = worker_of(models, arena)
    for name, version, reason in [
        ("shifted", 1, "a score differs by"),
        ("colors", 9, "cannot be read"),
        ("birds", 1, "cannot be read"),
    ]:
        loaded = worker.load(Load(3, name, version, None))
        assert reason in loaded.refused
        assert loaded.manifest is None
    assert worker._models == {}


def test_the_fastest_variant_is_chosen_and_told_before_it_is_tried(models, arena):
    toy_bundle(models, "light", lighter={"fp16": None, "int8": None})
    said = []
    loaded = worker_of(models, arena, variant="auto").load(Load(3, "light", 1, None), said.append)
    assert said == [Trying(3, "int8")]
    assert loaded.description.variant == "int8"
    assert [(trial.variant, trial.reason) for trial in loaded.description.trials] == [
        ("fp32", "int8 is faster"),
        ("fp16", "a CPU computes it in fp32, after converting"),
        ("int8", ""),
    ]


@pytest.mark.parametrize(("setting", "order_", "served"), [("auto", "fp32", "fp32"), ("int8", "", "int8")])
def test_a_variant_that_is_named_is_not_compared(models, arena, setting, order_, served):
    toy_bundle(models, "light", lighter={"int8": None})
    said = []
    loaded = worker_of(models, arena, variant=setting).load(Load(3, "light", 1, None, order_), said.append)
    assert (loaded.description.variant, loaded.description.trials, said) == (served, [], [])


def test_without_the_required_signature_nothing_is_loaded(models, arena, tmp_path):
    _, keys = write_keys(tmp_path, "ours")
    simple(models)
    worker = worker_of(models, arena, require_signature=str(keys))
    assert "sign" in worker.load(Load(1, "colors", 1, None)).refused
    assert "cannot be signed" in worker.load(Load(2, "simple", 1, GraphConfig())).refused


def test_what_is_unloaded_is_forgotten(worker):
    worker.unload(Unload(1))
    worker.unload(Unload(1))
    assert worker._models == {}


# Running


def test_pictures_are_decoded_and_run_together(worker, arena):
    done = run(worker, order(*(put(arena, one) for one in (RED, GREEN, BLUE))))
    assert [scores.argmax() for scores in done.outcomes] == [0, 1, 2]
    assert (done.run_count, done.bucket) == (3, 4)
    assert done.preprocess_s > 0
    assert done.inference_s > 0


def test_arrays_are_run_as_they_are(models, arena):
    toy_bundle(models, "numbers", features=True)
    worker = worker_of(models, arena)
    worker.load(Load(2, "numbers", 1, None))
    rows = [put(arena, np.array(values, np.float32)) for values in ([0, 3, 0, 0], [3, 0, 0, 0])]
    done = run(worker, order(*rows, bucket=2, model=2))
    assert [scores.argmax() for scores in done.outcomes] == [1, 0]


def test_a_picture_that_cannot_be_used_fails_alone(worker, arena):
    large = picture(size=(1200, 1000))
    done = run(worker, order(*(put(arena, one) for one in (RED[:-30], GREEN, large, BLUE))))
    damaged, green, too_large, blue = done.outcomes
    assert isinstance(damaged, PictureUndecodableError)
    assert isinstance(too_large, PictureTooLargeError)
    assert too_large.pixel_count == 1_200_000
    assert [green.argmax(), blue.argmax()] == [1, 2]
    assert (done.run_count, done.bucket) == (2, 2)


def test_an_input_that_the_model_fails_on_fails_alone(worker, arena):
    sound = worker._models[1].run

    def fail_on_green(batch):
        if (batch[:, 0, 0, 1] == 255).any():
            raise RuntimeError("green")
        return sound(batch)

    worker._models[1] = worker._models[1]._replace(run=fail_on_green)
    done = run(worker, order(*(put(arena, one) for one in (RED, GREEN, BLUE))))
    assert [type(outcome) for outcome in done.outcomes] == [np.ndarray, InferenceFailedError, np.ndarray]
    assert (done.run_count, done.bucket) == (3, 0)


def test_inputs_whose_callers_have_left_cost_neither_decoding_nor_a_run(worker, arena, monkeypatch):
    decoded = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda payload, *spec: decoded.append(payload) or decode(payload, *spec))
    model = Counting(worker)
    left, staying = put(arena, RED), put(arena, GREEN)
    arena.abandon(left.offset)
    done = run(worker, order(left, staying))
    assert decoded == [GREEN]
    assert model.batches == [1]
    assert isinstance(done.outcomes[0], DeadlineTooShortError)
    assert done.outcomes[1].argmax() == 1
    assert done.run_count == 1


def test_who_leaves_during_decoding_costs_no_run(worker, arena, monkeypatch):
    leaving, staying = put(arena, RED), put(arena, GREEN)
    decode = pixels.decode

    def decode_slowly(payload, *spec):
        if payload == GREEN:
            arena.abandon(leaving.offset)
        return decode(payload, *spec)

    monkeypatch.setattr(pixels, "decode", decode_slowly)
    model = Counting(worker)
    done = run(worker, order(leaving, staying))
    assert model.batches == [1]
    assert isinstance(done.outcomes[0], DeadlineTooShortError)
    assert done.outcomes[1].argmax() == 1


def test_a_batch_that_everybody_left_runs_nothing(worker, arena):
    model = Counting(worker)
    inputs = [put(arena, RED), put(arena, GREEN)]
    for one in inputs:
        arena.abandon(one.offset)
    done = run(worker, order(*inputs))
    assert model.batches == []
    assert (done.run_count, done.bucket) == (0, 0)
    assert all(isinstance(outcome, DeadlineTooShortError) for outcome in done.outcomes)


def test_what_is_too_late_is_not_run(worker, arena):
    model = Counting(worker)
    late, good = put(arena, RED), put(arena, GREEN)
    done = run(worker, order(late, good, deadlines=[time.monotonic() - 1, LATER]))
    assert isinstance(done.outcomes[0], DeadlineTooShortError)
    assert model.batches == [1]


def test_a_picture_for_a_graph_fails_alone(tmp_path, arena):
    simple(tmp_path, dtype=TensorProto.FLOAT)
    worker = worker_of(tmp_path, arena)
    worker.load(Load(1, "simple", 1, GraphConfig()))
    done = run(worker, order(put(arena, RED)))
    assert isinstance(done.outcomes[0], TypeError)
    assert done.run_count == 0


# Decoding for another process


def test_what_one_process_decodes_in_place_another_runs(worker, models, arena):
    spec = worker._models[1].pixels
    decoder = worker_of(models, arena)
    inputs = [put(arena, one, room=8 * 8 * 3) for one in (RED, GREEN, BLUE)]
    decoded = decoder.decode(Decode(spec, inputs, [LATER] * 3))
    assert [(one.offset, one.shape, one.dtype) for one in decoded.outcomes] == [
        (one.offset, (8, 8, 3), np.uint8) for one in inputs
    ]
    assert len(decoded.seconds) == 3
    assert min(decoded.seconds) > 0
    done = run(worker, order(*decoded.outcomes))
    assert [scores.argmax() for scores in done.outcomes] == [0, 1, 2]


def test_decoding_fails_for_each_input_alone(worker, arena):
    spec = worker._models[1].pixels
    good, damaged, left, late = (put(arena, one, room=192) for one in (RED, RED[:-30], GREEN, BLUE))
    arena.abandon(left.offset)
    deadlines = [LATER, LATER, LATER, time.monotonic() - 1]
    outcomes = worker.decode(Decode(spec, [good, damaged, left, late], deadlines)).outcomes
    assert [type(outcome) for outcome in outcomes] == [
        Input,
        PictureUndecodableError,
        DeadlineTooShortError,
        DeadlineTooShortError,
    ]


# Following orders


class Noting:
    """Stands for a worker: notes what it is told to do, and may be held up."""

    def __init__(self):
        self.done = []
        self.threads = {}
        """Which load and run each model."""
        self.policies = []
        """Of the threads that loaded."""
        self.held = threading.Event()
        self.held.set()
        self.second_gathered = threading.Event()
        self.may_load = threading.Event()
        self.may_load.set()

    def load(self, order, tell):
        self.threads.setdefault(order.model, set()).add(threading.get_ident())
        self.policies.append(os.sched_getscheduler(0))
        tell(Trying(order.model, "int8"))
        self.may_load.wait(20)
        self.done.append(("load", order.model))
        return Loaded(order.model, "")

    def unload(self, order):
        self.done.append(("unload", order.model))

    def gather(self, order):
        self.done.append(("gather", order.model))
        if order.model == 2:
            self.second_gathered.set()
        return order

    def answer(self, gathered):
        self.threads.setdefault(gathered.model, set()).add(threading.get_ident())
        self.held.wait(20)
        self.done.append(("answer", gathered.model))
        return Done([], 0.0, 0.0, gathered.model, 1)

    def decode(self, order):
        self.done.append(("decode", order.deadlines))
        return Decoded([], [])


def following(worker, overlaps):
    """The server's end of a socket, and the thread at the other end."""
    ours, theirs = socket_pair()

    def follow():
        with theirs:
            serve(theirs, worker, overlaps)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    ours.settimeout(20)
    return ours, thread


@pytest.mark.parametrize("overlaps", [False, True])
def test_orders_are_followed_in_turn_and_answered(overlaps):
    worker = Noting()
    server, thread = following(worker, overlaps)
    given = [Load(1, "a", 1, None), order(model=1), order(model=2), Unload(1), Load(1, "b", 1, None)]
    server.sendall(b"".join(map(pack, [*given, Decode(None, [], [5.0])])))
    server.shutdown(socket.SHUT_WR)
    answers = list(received(server))
    thread.join(20)
    assert not thread.is_alive()
    server.close()
    assert [type(answer) for answer in answers] == [Trying, Loaded, Done, Done, Trying, Loaded, Decoded]
    assert [answer.run_count for answer in answers[2:4]] == [1, 2]
    assert worker.done[0] == ("load", 1)
    # Nothing is unloaded, or loaded where there is nothing else to do, while a batch runs.
    assert set(worker.done[1:5]) == {("gather", 1), ("answer", 1), ("gather", 2), ("answer", 2)}
    assert sorted(worker.done[5:]) == [("decode", [5.0]), ("load", 1), ("unload", 1)]


def test_the_next_batch_is_gathered_while_one_runs():
    worker = Noting()
    worker.held.clear()
    server, thread = following(worker, overlaps=True)
    server.sendall(pack(order(model=1)) + pack(order(model=2)))
    assert worker.second_gathered.wait(20)
    assert ("answer", 1) not in worker.done
    worker.held.set()
    server.shutdown(socket.SHUT_WR)
    assert [answer.run_count for answer in received(server)] == [1, 2]
    thread.join(20)
    server.close()


def test_a_worker_that_decodes_what_it_runs_does_one_thing_after_the_other():
    worker = Noting()
    server, thread = following(worker, overlaps=False)
    server.sendall(pack(order(model=1)) + pack(order(model=2)))
    server.shutdown(socket.SHUT_WR)
    assert len(list(received(server))) == 2
    thread.join(20)
    server.close()
    assert worker.done == [("gather", 1), ("answer", 1), ("gather", 2), ("answer", 2)]


def test_who_loads_a_model_for_a_gpu_runs_it_too():
    """ONNX Runtime keeps captured CUDA graphs by thread."""
    worker = Noting()
    server, thread = following(worker, overlaps=True)
    loads = [Load(model, "a", model, None, gently=model > 1) for model in (1, 2)]
    server.sendall(b"".join(map(pack, loads)))
    answers = received(server)
    assert {type(next(answers)) for _ in range(4)} == {Trying, Loaded}
    server.sendall(b"".join(map(pack, [order(model=1), order(model=2), order(model=1)])))
    server.shutdown(socket.SHUT_WR)
    assert [answer.run_count for answer in answers] == [1, 2, 1]
    thread.join(20)
    server.close()
    assert [len(worker.threads[model]) for model in (1, 2)] == [1, 1]
    assert worker.threads[1] != worker.threads[2]  # so that one is loaded while the other runs


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_gentle_load_holds_up_no_batch_and_an_unload_comes_after_it(overlaps):
    worker = Noting()
    server, thread = following(worker, overlaps)
    worker.may_load.clear()
    server.sendall(b"".join(map(pack, [Load(1, "a", 1, None, gently=True), order(model=2)])))
    answers = received(server)
    assert {type(next(answers)) for _ in range(2)} == {Trying, Done}
    server.sendall(pack(Unload(1)))
    worker.may_load.set()
    assert isinstance(next(answers), Loaded)
    server.shutdown(socket.SHUT_WR)
    assert list(answers) == []
    thread.join(20)
    server.close()
    assert worker.done == [("gather", 2), ("answer", 2), ("load", 1), ("unload", 1)]
    assert worker.policies == [os.SCHED_OTHER if overlaps else os.SCHED_IDLE]


def test_a_reset_connection_is_the_end():
    ours, theirs = socket_pair()
    theirs.sendall(pack("unread"))
    ours.sendall(pack("read"))
    ours.close()  # with something unread: the other end is reset
    with theirs:
        assert list(received(theirs)) in (["read"], [])
