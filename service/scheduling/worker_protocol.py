"""What the front process and its workers say to each other, and how it is laid out on their socket.

A frame is two lengths, a pickled message, and the payloads that the message speaks of, laid end to end so that
encoded pictures are never copied into the pickle. Both ends are processes of one server, started by it.
"""

import io
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

HEADER = struct.Struct("=II")


@dataclass(frozen=True, slots=True)
class Load:
    """Front → worker: prove this bundle and keep it."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Front → worker: forget this bundle. Not answered."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Worker → front: what became of a `Load`."""

    name: str
    version: int
    precision: str
    provider: str
    run_s: dict[int, float]
    largest_difference: float
    refused: str = ""
    """Why not; empty if it may be served."""


@dataclass(frozen=True, slots=True)
class Run:
    """Front → worker: decode and run these inputs together."""

    name: str
    version: int
    bucket: int
    """The size that the batch is padded to."""
    deadlines: tuple[float, ...]
    """Points of `time.monotonic()`, which all processes of a machine share."""
    arrays: tuple[NDArray[Any], ...]
    """The inputs, if they need no decoding; else the payloads behind the message are encoded pictures."""


@dataclass(frozen=True, slots=True)
class Done:
    """Worker → front: the outcomes of a `Run`, in its order. The worker is idle again."""

    outcomes: tuple[NDArray[Any] | Exception, ...]
    """For each input its scores, or why it has none."""
    preprocess_s: float
    """Of all inputs together."""
    inference_s: float
    run_count: int
    """Inputs that reached the model."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        """Takes an exception apart into its facts: many are built from others than they keep in `args`."""
        if isinstance(thing, Exception):
            return _rebuild, (type(thing), thing.args, vars(thing))
        return NotImplemented


def _rebuild(kind: type[Exception], args: tuple[Any, ...], facts: dict[str, Any]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(facts)
    return error


def pack(message: object, payloads: Sequence[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    """The pieces of a frame, to be sent one after the other."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump((message, tuple(map(len, payloads))))
    pickled = file.getvalue()
    return [HEADER.pack(len(pickled), sum(map(len, payloads))) + pickled, *payloads]


def unpack(pickled: memoryview | bytes, payload: memoryview) -> tuple[Any, list[bytes]]:
    """The message of a frame and its payloads."""
    message, lengths = pickle.loads(pickled)  # noqa: S301 - from a process of this server
    payloads, start = [], 0
    for length in lengths:
        payloads.append(bytes(payload[start : start + length]))
        start += length
    return message, payloads
