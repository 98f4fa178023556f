"""Encoded inputs → the array of one input, on a pool of threads.

The only place of the service that touches `taxon.bundle.pixels`. Pillow releases the interpreter lock while it
decodes and resizes, so the pool's threads use as many cores.
"""

import asyncio
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import pixels
from taxon.bundle.manifest import Manifest
from taxon.bundle.picture_limits import Limits
from taxon.service.errors import DeadlineTooShortError, FieldInvalidError

LARGE_PIXELS = 2_000_000
# SOF0 to SOF15, without DHT, JPG and DAC, which lie among them.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Encoded = bytes | memoryview
Payload = Encoded | Sequence[float]
Array = NDArray[np.uint8] | NDArray[np.float32]


def to_array(payload: Payload, manifest: Manifest, limits: Limits) -> Array:
    """The array that the graph takes for one input, without its batch axis: uint8 `[height, width, channels]`
    or float32 `[features]`.

    Raises:
        FieldInvalidError: The payload is of the other kind, or has another number of values, or one that is not
            finite.
        PictureUndecodableError: See `pixels.decode`.
        PictureTooLargeError: See `pixels.decode`.
    """
    if manifest.pixels is not None:
        if not isinstance(payload, bytes | memoryview):
            raise FieldInvalidError("features", f"model {manifest.name!r} takes an image")
        return pixels.decode(bytes(payload), manifest.pixels, limits)
    if isinstance(payload, bytes | memoryview):
        raise FieldInvalidError("image", f"model {manifest.name!r} takes features")
    values = np.asarray(payload, dtype=np.float32)
    if values.shape != manifest.input.shape:
        raise FieldInvalidError("features.values", f"{manifest.input.shape[0]} values are needed, not {values.size}")
    if (wrong := np.flatnonzero(~np.isfinite(values))).size:
        raise FieldInvalidError("features.values", f"every value must be finite, number {wrong[0]} (from 0) is not")
    return values


def is_large(payload: Payload | Array) -> bool:
    """Whether decoding takes several times as long as running a model: such pictures must not make others wait."""
    return isinstance(payload, bytes | memoryview) and header_pixels(payload) > LARGE_PIXELS


def header_pixels(encoded: Encoded) -> int:
    """The pixels of a picture as its header states them, without decoding; 0 if the header cannot be read."""
    if encoded[:2] == b"\xff\xd8":
        return _jpeg_pixels(encoded)
    try:
        with pixels.open_picture(BytesIO(encoded)) as picture:
            return picture.width * picture.height
    except Exception:  # noqa: BLE001 - Pillow's parsers raise anything on hostile bytes; `decode` will say why
        return 0


def _jpeg_pixels(encoded: Encoded) -> int:
    """Walks a JPEG's segments to its frame header (ITU T.81, annex B); a fifth of the time that Pillow takes to
    open one, which every call would pay.
    """
    at = 2
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in FRAME_HEADERS:
            return int.from_bytes(encoded[at + 5 : at + 7]) * int.from_bytes(encoded[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return 0


class Decoder:
    """A pool of decoding threads with one queue, first come first served; but large pictures leave one thread to the
    others, as long as there are others.
    """

    def __init__(self, thread_count: int, limits: Limits) -> None:
        self._pool = ThreadPoolExecutor(thread_count, thread_name_prefix="decode")
        self._large = asyncio.Semaphore(max(1, thread_count - 1))
        self._limits = limits

    async def decode(self, payload: Payload, manifest: Manifest, deadline: float) -> Array:
        """As `to_array`. Work whose caller has gone, or whose deadline has passed, is never started.

        Args:
            payload: What the caller sent.
            manifest: The model's.
            deadline: A point of `time.monotonic()`.

        Raises:
            DeadlineTooShortError: The deadline passed while waiting for a thread.
        """
        large = is_large(payload)
        if large:
            await self._large.acquire()
        decoding = self._pool.submit(self._decode_in_time, payload, manifest, deadline)
        if large:  # a caller who leaves does not free the thread
            free = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, self._large.release)
            decoding.add_done_callback(lambda _: free())
        return await asyncio.wrap_future(decoding)

    def _decode_in_time(self, payload: Payload, manifest: Manifest, deadline: float) -> Array:
        if (remaining := deadline - time.monotonic()) <= 0:
            raise DeadlineTooShortError(remaining, 0.0)
        return to_array(payload, manifest, self._limits)

    def close(self) -> None:
        """Finishes what has been started and joins the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
