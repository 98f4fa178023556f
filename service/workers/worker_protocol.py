"""What the processes of one server say to each other, and how it is laid out on their sockets.

A frame is a length and a pickled message. Inputs are not in it: they lie in shared memory, see `arena`. All ends are
processes of one server, started by it.
"""

import io
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray
from pydantic import TypeAdapter

from taxon.bundle.manifest import Manifest, PixelSpec
from taxon.service.runtime.description import Description, GraphConfig
from taxon.service.runtime.device import Device
from taxon.service.scheduling.arena import Input

LENGTH = struct.Struct("=I")
Role = Literal["whole", "run", "decode"]
"""What a worker does: decode and run, run what others decoded, or decode."""


class Load(NamedTuple):
    """Server → worker: prove this model and keep it."""

    model: int
    """Stands for what is loaded by this order; the same version loaded again has another."""
    name: str
    version: int
    config: GraphConfig | None
    """Of a graph without a manifest; None: it is a bundle."""
    variant: str = ""
    """Of a bundle, which another worker has chosen; empty: as the settings say."""
    without: dict[str, str] = {}
    """Variants that must not be tried, and why."""
    gently: bool = False
    """Whether callers are answered meanwhile, who should not notice."""


class Trying(NamedTuple):
    """Worker → server: the model of a `Load` is proven as fp32, and this variant is opened next. If that ends the
    process, only the variant is to blame.
    """

    model: int
    variant: str


class Loaded(NamedTuple):
    """Worker → server: what became of a `Load`."""

    model: int
    refused: str
    """Why it may not be served; empty if it may."""
    description: Description | None = None
    manifest: Manifest | None = None
    run_s: dict[int, float] = {}
    """Seconds of one run by bucket, ascending."""
    largest_difference: float = 0.0
    """Of any score of any golden."""


class Unload(NamedTuple):
    """Server → worker: forget this model. Not answered."""

    model: int


class Run(NamedTuple):
    """Server → worker: run these inputs together, after decoding those that are encoded."""

    model: int
    bucket: int
    """The size that the batch is padded to."""
    inputs: list[Input]
    deadlines: list[float]
    """Points of `time.monotonic()`, which all processes of a machine share."""


class Done(NamedTuple):
    """Worker → server: the outcomes of a `Run`, in its order."""

    outcomes: list[NDArray[Any] | Exception]
    """For each input its scores, or why it has none."""
    preprocess_s: float
    """Of all inputs together."""
    inference_s: float
    run_count: int
    """Inputs that reached the model."""
    bucket: int
    """The size that ran; 0 if the inputs had to be run one by one."""
    brightness: dict[int, float] = {}
    """Of the arrays that reached a model of pictures, see `taxon.bundle.distributions`, by place in the order."""


class Decode(NamedTuple):
    """Server → decoder: decode these inputs of a bundle in place."""

    pixels: PixelSpec
    inputs: list[Input]
    deadlines: list[float]


class Decoded(NamedTuple):
    """Decoder → server: what each input of a `Decode` has become, in its order: an array's place, or why not."""

    outcomes: list[Input | Exception]
    seconds: list[float]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker must know; passed on its command line."""

    models: str
    variant: Literal["auto", "fp32", "fp16", "int8"]
    device: Device
    buckets: tuple[int, ...]
    max_batch_size: int
    """Of one request for a graph without a manifest."""
    max_picture_bytes: int
    max_picture_pixels: int
    log_format: Literal["json", "console"]
    log_level: Literal["debug", "info", "warning", "error"]
    role: Role = "whole"
    thread_count: int = 1
    """Of one run."""
    require_signature: str | None = None
    """File of public keys."""


AS_JSON = TypeAdapter(WorkerSettings)
"""How settings are written on a command line."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        """Takes an exception apart into its facts: many are built from others than they keep in `args`."""
        if isinstance(thing, Exception):
            return type(thing).__new__, (type(thing), *thing.args), vars(thing)
        return NotImplemented


def pack(message: object) -> bytes:
    """A frame."""
    file = io.BytesIO(bytes(LENGTH.size))
    file.seek(LENGTH.size)
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(message)
    frame = file.getbuffer()
    LENGTH.pack_into(frame, 0, len(frame) - LENGTH.size)
    return frame.tobytes()


def unpacked(received: bytearray) -> Iterator[Any]:
    """The messages of all whole frames; takes them out of `received`."""
    while len(received) >= LENGTH.size:
        (length,) = LENGTH.unpack_from(received)
        end = LENGTH.size + length
        if len(received) < end:
            return
        with memoryview(received) as whole:
            message = pickle.loads(whole[LENGTH.size : end])  # noqa: S301 - from a process of this server
        del received[:end]
        yield message
