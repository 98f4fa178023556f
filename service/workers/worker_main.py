"""A worker process: takes orders from the server, decodes, runs, proves, one thing after the other.

One thread, one model run at a time: on a CPU, one such process for each core came out as the fastest arrangement. What
is loaded beside models that are asked is loaded by another thread: on a CPU one that takes only idle time, on a GPU the
one that will run it. There the inputs of the next batch are gathered while one runs. Knows models, pictures and
sessions; nothing of gRPC, queues or other workers. Ends when the server closes the socket.
"""

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon import freed_memory
from taxon.bundle import pixels, signing, store
from taxon.bundle.distributions import brightness
from taxon.bundle.manifest import BundleError, PixelSpec
from taxon.bundle.picture_limits import Limits
from taxon.service.errors import DeadlineTooShortError
from taxon.service.runtime.batch_run import answer_batch, stacked
from taxon.service.runtime.bundle_proof import Proven, describe, prove
from taxon.service.runtime.cuda_graphs import undisturbed
from taxon.service.runtime.description import GraphConfig, Trial
from taxon.service.runtime.graph_proof import prove_graph
from taxon.service.runtime.variant_choice import AUTO, fastest
from taxon.service.scheduling.arena import ArenaView, Input
from taxon.service.telemetry import logs
from taxon.service.workers.child_process import begin
from taxon.service.workers.worker_protocol import (
    AS_JSON,
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
    unpacked,
)

NICENESS = 5  # the front answers refusals and health while every core runs models
READ_BYTES = 2**18

log = structlog.get_logger(__name__)

Array = NDArray[Any]


def _explains_nothing(_: Array) -> Array:
    raise TypeError("an explanation of a graph without a manifest")


class Runs(NamedTuple):
    """What a worker does with one model."""

    pixels: PixelSpec | None
    """How its pictures are decoded; None: it takes none."""
    run: Callable[[Array], Array]
    explain: Callable[[Array], Array] = _explains_nothing
    watches_brightness: bool = False
    """Whether its bundle says how bright the validation set is, so that somebody compares."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A batch whose inputs are ready to be run."""

    order: Run
    outcomes: list[Array | Exception]
    ready: list[int]
    """Places in the order of the inputs that are run."""
    batch: Array | None
    """Those inputs, padded; None: there are none."""
    preprocess_s: float
    brightness: dict[int, float]
    """See `Done`."""


class Worker:
    """The models of one worker and what it does with them."""

    def __init__(self, settings: WorkerSettings, arenas: Sequence[ArenaView]) -> None:
        self._settings = settings
        self._arenas = arenas
        self._limits = Limits(settings.max_picture_bytes, settings.max_picture_pixels)
        required = settings.require_signature
        self._check_signature = None if required is None else signing.checker(Path(required))
        self._models: dict[int, Runs] = {}

    def load(self, order: Load, tell: Callable[[Trying], None] = lambda _: None) -> Loaded:
        """Proves a model and keeps it.

        Args:
            order: Of the model.
            tell: Told of every variant that is tried, before it is opened.
        """
        try:
            return self._load_bundle(order, tell) if order.config is None else self._load_graph(order, order.config)
        except BundleError as error:
            return Loaded(order.model, str(error))

    def _load_bundle(self, order: Load, tell: Callable[[Trying], None]) -> Loaded:
        settings = self._settings
        bundle = store.read(Path(settings.models), order.name, order.version, self._check_signature)
        manifest, threads, buckets = bundle.manifest, settings.thread_count, settings.buckets

        def prove_one(precision: str, given: Array | None = None) -> Proven:
            return prove(bundle, precision, settings.device, threads, buckets, self._limits, given)

        wanted, trials = order.variant or settings.variant, list[Trial]()
        if wanted == AUTO:
            proven, trials = fastest(
                manifest, prove_one, order.without, lambda variant: tell(Trying(order.model, variant))
            )
            freed_memory.release()  # of those that are not served
        else:
            proven = prove_one(wanted)
        watches = "brightness" in manifest.distributions
        self._models[order.model] = Runs(manifest.pixels, proven.session.run, proven.explain, watches)
        precision, provider = proven.variant.precision, proven.session.provider
        description = describe(manifest, precision, provider, buckets, settings.max_batch_size, trials)
        return Loaded(order.model, "", description, manifest, proven.run_s, proven.largest_difference)

    def _load_graph(self, order: Load, config: GraphConfig) -> Loaded:
        settings = self._settings
        if self._check_signature is not None:
            raise BundleError("it has no manifest, so it cannot be signed, and a signature is required")
        proven = prove_graph(
            Path(settings.models, order.name, str(order.version)),
            config,
            settings.device.provider,
            settings.thread_count,
            settings.buckets,
            settings.max_batch_size,
        )
        self._models[order.model] = Runs(None, proven.run)
        return Loaded(order.model, "", proven.description, None, dict(proven.run_s))

    def unload(self, order: Unload) -> None:
        """Forgets a model, and gives back its memory."""
        with undisturbed:
            self._models.pop(order.model, None)
        freed_memory.release()

    def gather(self, order: Run) -> Gathered:
        """Decodes what somebody still waits for, and stacks it."""
        model = self._models[order.model]
        began = time.monotonic()
        outcomes: list[Array | Exception] = [DeadlineTooShortError(0.0, 0.0)] * len(order.inputs)
        ready: list[tuple[int, Array]] = []
        for index, (given, deadline) in enumerate(zip(order.inputs, order.deadlines, strict=True)):
            try:
                ready.append((index, self._array(given, deadline, model.pixels)))
            except Exception as error:  # noqa: BLE001 - one input's failure is its own
                outcomes[index] = error
        # Decoding took a while: whoever has left meanwhile costs no run.
        ready = [(index, array) for index, array in ready if not self._gone(order.inputs[index])]
        places = [index for index, _ in ready]
        batch = stacked([array for _, array in ready], order.bucket) if ready else None
        bright: dict[int, float] = {}
        if batch is not None and model.watches_brightness:
            bright = dict(zip(places, brightness(batch[: len(ready)]).tolist(), strict=True))
        return Gathered(order, outcomes, places, batch, time.monotonic() - began, bright)

    def answer(self, gathered: Gathered) -> Done:
        """Runs a batch."""
        outcomes, ready = gathered.outcomes, gathered.ready
        model = self._models[gathered.order.model]
        run = model.explain if gathered.order.inputs[0].explained else model.run
        began = time.monotonic()
        with undisturbed:
            answers, bucket = ([], 0) if gathered.batch is None else answer_batch(run, gathered.batch, len(ready))
        for index, answer in zip(ready, answers, strict=True):
            outcomes[index] = answer
        seconds = gathered.preprocess_s, time.monotonic() - began
        return Done(outcomes, *seconds, len(ready), bucket, gathered.brightness)

    def decode(self, order: Decode) -> Decoded:
        """Decodes pictures in place, for another process to run."""
        outcomes: list[Input | Exception] = []
        seconds: list[float] = []
        for given, deadline in zip(order.inputs, order.deadlines, strict=True):
            began = time.monotonic()
            try:
                array = self._array(given, deadline, order.pixels)
                place = self._arenas[given.arena].input(given.offset, array.nbytes)
                np.frombuffer(place, array.dtype).reshape(array.shape)[...] = array
                outcomes.append(given._replace(byte_count=array.nbytes, dtype=array.dtype, shape=array.shape))
            except Exception as error:  # noqa: BLE001 - one input's failure is its own
                outcomes.append(error)
            seconds.append(time.monotonic() - began)
        return Decoded(outcomes, seconds)

    def _gone(self, given: Input) -> bool:
        return self._arenas[given.arena].gone(given.offset)

    def _array(self, given: Input, deadline: float, spec: PixelSpec | None) -> Array:
        remaining = deadline - time.monotonic()
        if self._gone(given) or remaining <= 0:
            raise DeadlineTooShortError(remaining, 0.0)
        place = self._arenas[given.arena].input(given.offset, given.byte_count)
        if given.dtype is not None:
            return np.ndarray(given.shape, given.dtype, place)
        if spec is None:
            raise TypeError("an encoded picture for a model that takes none")
        return pixels.decode(bytes(place), spec, self._limits)


def serve(server: socket.socket, worker: Worker, overlaps: bool, yields: bool = True) -> None:
    """Follows orders until the server closes the socket.

    Args:
        server: Of the one whose orders these are.
        worker: Who follows them.
        overlaps: Whether one batch is gathered while another runs.
        yields: Whether the thread that loads beside batches takes only time that nobody else wants; a low priority
            would not do, since Linux lets whoever runs finish its slice before another one that has just woken up.
    """
    sending = threading.Lock()

    def send(message: object) -> None:
        frame = pack(message)  # by a gentle load it may take long
        with sending:
            server.sendall(frame)

    def answer(gathered: Gathered) -> None:
        send(worker.answer(gathered))

    def load(order: Load) -> None:
        send(worker.load(order, send))

    def beside(work: Callable[[Any], None], order: Load | Unload) -> None:
        try:
            work(order)
        except BrokenPipeError:
            return  # the server has gone
        except BaseException:  # noqa: BLE001 - on another thread too, what nobody foresaw ends the process
            traceback.print_exc()
            os._exit(1)

    def yield_to_others() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # of this thread
        except OSError as error:  # a sandbox may forbid it; a pool whose first thread fails would never load
            log.warning("callers may notice loads: the priority of a thread cannot be lowered", reason=str(error))

    lanes: dict[int, ThreadPoolExecutor] = {}

    def lane(model: int) -> ThreadPoolExecutor:
        # ONNX Runtime keeps captured CUDA graphs by thread: there, who loads a model runs it too.
        key = model if overlaps else 0
        if key not in lanes:
            lanes[key] = ThreadPoolExecutor(1, initializer=yield_to_others if yields and not overlaps else None)
        return lanes[key]

    if not overlaps:
        lane(0).submit(int)  # begins the thread: where no process is left to give later, the load would end the worker
    running: Future[None] | None = None
    for message in received(server):
        gathered = worker.gather(message) if isinstance(message, Run) else None
        if running:
            running.result()
        match message:
            case Run() if gathered and overlaps:
                running = lane(message.model).submit(answer, gathered)
            case Run() if gathered:
                answer(gathered)
            case Load() if message.gently:
                lane(message.model).submit(beside, load, message)
            case Load() if overlaps:
                send(lane(message.model).submit(worker.load, message, send).result())
            case Load():
                send(worker.load(message, send))
            case Unload():
                lane(message.model).submit(beside, worker.unload, message)  # after a load of it that was given up
                if overlaps:
                    lanes.pop(message.model).shutdown(wait=False)
            case Decode():
                send(worker.decode(message))
    for own in lanes.values():
        own.shutdown()


def received(server: socket.socket) -> Iterator[Any]:
    """Every message, until the socket is closed."""
    buffer = bytearray()
    while True:
        try:
            part = server.recv(READ_BYTES)
        except OSError:
            return
        if not part:
            return
        buffer += part
        yield from unpacked(buffer)


def main(argv: list[str]) -> None:
    """Serves the process at the other end of a socket.

    Args:
        argv: Descriptors of the socket and of every arena, joined by commas; settings as JSON.
    """
    begin()
    os.nice(NICENESS)
    socket_number, *arena_numbers = map(int, argv[0].split(","))
    settings = AS_JSON.validate_json(argv[1])
    logs.configure(settings.log_format, settings.log_level)
    worker = Worker(settings, [ArenaView(number) for number in arena_numbers])
    with socket.socket(fileno=socket_number) as server:
        try:
            # The threads of a session inherit the priority of the one that opens it.
            serve(server, worker, settings.role == "run", yields=settings.thread_count == 1)
        except BrokenPipeError:
            return  # the server has gone while an answer was on its way


if __name__ == "__main__":
    main(sys.argv[1:])
