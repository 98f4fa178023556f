"""The pool of decoding threads: who waits for whom."""

import asyncio
import threading
import time

import pytest

from taxon.bundle.picture_limits import Limits
from taxon.service.errors import DeadlineTooShortError
from taxon.service.runtime import decoding
from taxon.service.runtime.decoding import Decoder, header_pixels, is_large
from tests.fakes import picture

SMALL, LARGE = picture(), picture(size=(2000, 1001))


@pytest.fixture
def held(monkeypatch):
    """Decoding takes until it is let go; what has begun is noted."""
    let_go, begun = threading.Event(), []

    def hold(payload, manifest, limits):
        begun.append(payload)
        if payload is LARGE:
            let_go.wait(10)
        return payload

    monkeypatch.setattr(decoding, "to_array", hold)
    yield begun, let_go
    let_go.set()


async def begin(decoder, payload, count):
    soon = time.monotonic() + 10
    calls = [asyncio.create_task(decoder.decode(payload, None, soon)) for _ in range(count)]
    await asyncio.sleep(0.05)  # long enough for what could begin to have begun
    return calls


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 1), (4, 3)])
async def test_large_pictures_leave_a_thread_to_the_others(held, threads, at_once):
    begun, let_go = held
    decoder = Decoder(threads, Limits())
    large = await begin(decoder, LARGE, 8)
    assert begun == [LARGE] * at_once
    if threads > 1:
        small = await begin(decoder, SMALL, 8)
        assert all(call.done() for call in small)
    let_go.set()
    await asyncio.gather(*large)
    decoder.close()


async def test_a_caller_who_leaves_does_not_free_the_thread(held):
    begun, let_go = held
    decoder = Decoder(2, Limits())
    (first,) = await begin(decoder, LARGE, 1)
    first.cancel()
    (second,) = await begin(decoder, LARGE, 1)
    assert begun == [LARGE]
    let_go.set()
    await second
    assert begun == [LARGE] * 2
    decoder.close()


async def test_callers_who_leave_the_queue_hold_nobody_up(held):
    begun, let_go = held
    decoder = Decoder(2, Limits())
    first, *others, last = await begin(decoder, LARGE, 5)
    for call in others:
        call.cancel()
    let_go.set()
    await asyncio.gather(first, last)
    assert begun == [LARGE] * 2
    decoder.close()


async def test_what_is_too_late_is_not_decoded(held):
    begun, _ = held
    decoder = Decoder(1, Limits())
    with pytest.raises(DeadlineTooShortError):
        await decoder.decode(SMALL, None, time.monotonic() - 1)
    assert not begun
    decoder.close()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_pixels_are_read_from_the_header(form):
    encoded = picture(size=(300, 200), form=form)
    assert header_pixels(encoded) == 60_000
    assert header_pixels(encoded[:3]) == 0
    assert not is_large(encoded)
    assert not is_large((1.0, 2.0))
