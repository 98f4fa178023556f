"""A worker process: takes batches from the front process, decodes and runs them, one after the other.

One thread, one model run at a time: two such processes on two cores came out as the fastest arrangement. Knows
bundles, pictures and sessions; nothing of gRPC, queues or other workers. Ends when the front closes the socket.
"""

import json
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from taxon.bundle import signing, store
from taxon.bundle.manifest import BundleError, Manifest
from taxon.bundle.picture_limits import Limits
from taxon.service.errors import DeadlineTooShortError
from taxon.service.runtime.batch_run import answer_batch
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.decoding import Array, to_array
from taxon.service.runtime.session import Device, Session
from taxon.service.scheduling import worker_protocol
from taxon.service.scheduling.worker_protocol import Done, Load, Loaded, Run, Unload
from taxon.service.telemetry import logs

FLAG_COUNT = 4096
"""Inputs of one batch whose cancellation can be told while a worker has them."""
NICENESS = 5  # the front answers refusals and health while every core runs models


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker must know; passed on its command line."""

    models: str
    variant: Literal["fp32", "fp16", "int8"]
    device: Device
    buckets: tuple[int, ...]
    max_picture_bytes: int
    max_picture_pixels: int
    log_format: Literal["json", "console"]
    log_level: Literal["debug", "info", "warning", "error"]
    require_signature: str | None = None
    """File of public keys."""

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerSettings":
        """What `to_json` wrote."""
        told = json.loads(text)
        return cls(**{**told, "device": Device(**told["device"])})


class Worker:
    """The models of one worker and what it does with them."""

    def __init__(self, settings: WorkerSettings, gone: Callable[[int], bool]) -> None:
        self._settings = settings
        self._gone = gone
        self._limits = Limits(settings.max_picture_bytes, settings.max_picture_pixels)
        required = settings.require_signature
        self._check_signature = None if required is None else signing.checker(Path(required))
        self._models: dict[tuple[str, int], tuple[Manifest, Session]] = {}

    def load(self, order: Load) -> Loaded:
        """Proves a bundle and keeps it."""
        settings = self._settings
        try:
            bundle = store.read(Path(settings.models), order.name, order.version, self._check_signature)
            proven = prove(bundle, settings.variant, settings.device, 1, settings.buckets, self._limits)
        except BundleError as error:
            return Loaded(order.name, order.version, "", "", {}, 0.0, str(error))
        if not isinstance(proven.session, Session):
            raise TypeError("proven elsewhere")
        self._models[order.name, order.version] = proven.manifest, proven.session
        return Loaded(
            order.name,
            order.version,
            proven.variant.precision,
            proven.session.provider,
            proven.run_s,
            proven.largest_difference,
        )

    def unload(self, order: Unload) -> None:
        """Forgets a bundle."""
        self._models.pop((order.name, order.version), None)

    def run(self, order: Run, encoded: Sequence[bytes]) -> Done:
        """Decodes what somebody still waits for, runs it together."""
        manifest, session = self._models[order.name, order.version]
        began = time.monotonic()
        outcomes: list[NDArray[Any] | Exception] = [DeadlineTooShortError(0.0, 0.0)] * len(order.deadlines)
        ready: list[tuple[int, Array]] = []
        for index, payload in enumerate(order.arrays or encoded):
            try:
                ready.append((index, self._prepare(index, payload, order.deadlines[index], manifest)))
            except Exception as error:  # noqa: BLE001 - one input's failure is its own
                outcomes[index] = error
        # Decoding took a while: whoever has left meanwhile costs no run.
        ready = [(index, array) for index, array in ready if not self._gone(index)]
        decoded = time.monotonic()
        answers = answer_batch(session.run, [array for _, array in ready], order.bucket)
        for (index, _), answer in zip(ready, answers, strict=True):
            outcomes[index] = answer
        return Done(tuple(outcomes), decoded - began, time.monotonic() - decoded, len(ready))

    def _prepare(self, index: int, payload: Any, deadline: float, manifest: Manifest) -> Array:
        remaining = deadline - time.monotonic()
        if self._gone(index) or remaining <= 0:
            raise DeadlineTooShortError(remaining, 0.0)
        return to_array(payload, manifest, self._limits) if isinstance(payload, bytes) else payload


def main(argv: list[str]) -> None:
    """Serves the front process on the socket whose number is `argv[0]`.

    Args:
        argv: Socket, file of the cancellation flags, settings as JSON.
    """
    # Signals to the whole group reach the front too, which drains; this process ends when its socket closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = WorkerSettings.from_json(argv[2])
    logs.configure(settings.log_format, settings.log_level)
    flags = mmap.mmap(int(argv[1]), FLAG_COUNT)
    worker = Worker(settings, lambda index: flags[index] != 0)
    with socket.socket(fileno=int(argv[0])) as front:
        while (frame := _receive(front)) is not None:
            message, payloads = frame
            match message:
                case Load():
                    _send(front, worker.load(message))
                case Unload():
                    worker.unload(message)
                case Run():
                    _send(front, worker.run(message, payloads))


def _receive(front: socket.socket) -> tuple[Any, list[bytes]] | None:
    """The next message and its payloads; None at the end."""
    header = _read(front, worker_protocol.HEADER.size)
    if header is None:
        return None
    pickled_length, payload_length = worker_protocol.HEADER.unpack(header)
    body = _read(front, pickled_length + payload_length)
    return None if body is None else worker_protocol.unpack(body[:pickled_length], body[pickled_length:])


def _read(front: socket.socket, length: int) -> memoryview | None:
    whole = memoryview(bytearray(length))
    filled = 0
    while filled < length:
        count = front.recv_into(whole[filled:])
        if not count:
            return None
        filled += count
    return whole


def _send(front: socket.socket, message: object) -> None:
    for piece in worker_protocol.pack(message):
        front.sendall(piece)


if __name__ == "__main__":
    main(sys.argv[1:])
