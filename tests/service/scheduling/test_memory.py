"""What callers' inputs may take, and what decoding really takes."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.service.errors import StartError
from taxon.service.scheduling.memory import memory
from tests.fakes import picture

MIB = 2**20
LIMITS = Limits()
MESSAGE = 64 * MIB


@pytest.mark.parametrize(
    ("granted", "queued", "decoding"),
    [
        (64 * 1024 * MIB, 256 * MIB, 64 * 1024 * MIB // 3),
        (1024 * MIB, 128 * MIB, 1024 * MIB // 3),
        (256 * MIB, 64 * MIB, 256 * MIB // 3),  # no less than a message
    ],
)
def test_without_a_word_a_share_of_the_container(granted, queued, decoding):
    granted = memory(granted, LIMITS, MESSAGE)
    assert (granted.queued_bytes, granted.decoding_bytes) == (queued, decoding)


@pytest.mark.parametrize(
    "asked", [{"queued": 400 * MIB}, {"decoding": 900 * MIB}, {"queued": 300 * MIB, "decoding": 200 * MIB}]
)
def test_more_than_there_is_does_not_start(asked):
    with pytest.raises(StartError, match=f"more than the {700 * MIB} bytes of memory that this container has"):
        memory(700 * MIB, LIMITS, MESSAGE, **asked)


def test_what_is_asked_for_is_taken_if_it_fits():
    granted = memory(700 * MIB, LIMITS, MESSAGE, queued=100 * MIB, decoding=500 * MIB)
    assert (granted.queued_bytes, granted.decoding_bytes) == (100 * MIB, 500 * MIB)


def test_a_picture_too_large_for_the_memory_is_told_what_would_fit():
    narrow = memory(700 * MIB, LIMITS, MESSAGE, decoding=64 * MIB)
    with pytest.raises(PictureTooLargeError) as caught:
        narrow.to_decode(picture(size=(3000, 4000)))
    most = caught.value.limits.max_pixels
    assert 0 < most < 12_000_000
    assert narrow.to_decode(picture(size=(2000, most // 2000))) <= 64 * MIB


@pytest.mark.parametrize("granted", [700 * MIB, 2**40])
def test_a_header_that_does_not_tell_may_take_all_and_is_decoded_within_it(granted):
    """What is wrong with it is said by whoever decodes it: mostly it is cut off, not large."""
    narrow = memory(granted, LIMITS, MESSAGE)
    assert narrow.to_decode(b"\xff\xd8\xff") == narrow.decoding_bytes
    assert narrow.limits.max_pixels == min(LIMITS.max_pixels, narrow.decoding_bytes // 13)


def test_what_is_no_picture_takes_nothing():
    assert memory(2**40, LIMITS, MESSAGE).to_decode(b"what?") == 0


NOISE = np.random.default_rng(0).integers(0, 15, (2000, 3000), dtype=np.uint8)
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
MEASURE = """
import sys
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureUndecodableError
from taxon.bundle.pixels import decode

def most():
    words = open("/proc/self/status").read().split()
    return 1024 * int(words[words.index("VmHWM:") + 1])

encoded = open(sys.argv[1], "rb").read()
spec = PixelSpec(resize=256, crop=(224, 224), resampler=sys.argv[2])
before = most()
try:
    decode(encoded, spec, Limits(max_bytes=2**30))
except PictureUndecodableError:
    pass  # which has cost as much
print(most() - before)
"""


def written(mode, form, *, cut=0, **options):
    shown = Image.fromarray((NOISE.astype(np.uint16) << 8) if mode == "I;16" else NOISE)
    if mode not in ("L", "I;16"):
        shown = shown.convert(mode)
    encoded = BytesIO()
    shown.save(encoded, form, **options)
    return encoded.getvalue()[: -cut or None]


@pytest.mark.slow
@pytest.mark.parametrize("resampler", ["pillow", "simd"])
@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True, "subsampling": "4:4:4"}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": "4:4:4", "exif": TURNED}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"exif": TURNED}),
        ("RGB", "JPEG", {"cut": 2}),
        ("RGB", "JPEG", {"cut": 400, "exif": TURNED}),
        ("RGB", "JPEG", {"cut": 400, "progressive": True, "subsampling": "4:4:4"}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {"exif": TURNED}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("I;16", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True, "quality": 0, "method": 0, "exif": TURNED}),
        ("P", "GIF", {}),
        ("P", "GIF", {"transparency": 3}),
    ],
)
def test_no_picture_takes_more_than_is_counted_for_it(tmp_path, mode, form, options, resampler):
    encoded = written(mode, form, **options)
    (tmp_path / "picture").write_bytes(encoded)
    words = [sys.executable, "-c", MEASURE, str(tmp_path / "picture"), resampler]
    taken = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    counted = memory(2**40, LIMITS, MESSAGE).to_decode(encoded)
    sys.stdout.write(f"{mode} {form} {options}: {taken / NOISE.size:.1f} of {counted / NOISE.size} bytes a pixel\n")
    assert taken <= counted
