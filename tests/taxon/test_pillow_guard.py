"""Pillow's guard is lifted for `decode` alone; every other picture in the process is guarded as ever."""

import subprocess
import sys
import threading
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from taxon.bundle import pillow_guard
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.bundle.pixels import decode, open_picture
from tests.fakes import picture
from tests.taxon.test_pixels import encode, png_header

WARNED, REFUSED = png_header(10_000, 10_000), png_header(20_000, 20_000)
SPEC = PixelSpec(resize=8, crop=(8, 8))


def assert_guarded() -> None:
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(REFUSED))
    with pytest.raises(Image.DecompressionBombWarning):  # an error, as all warnings here
        Image.open(BytesIO(WARNED))


OTHER_PROGRAM = """
import sys
from PIL import Image
usual = Image.MAX_IMAGE_PIXELS
import taxon.bundle.pixels
assert Image.MAX_IMAGE_PIXELS == usual
try:
    Image.open(sys.argv[1])
except Image.DecompressionBombError:
    Image.MAX_IMAGE_PIXELS = None
    print("guarded, then", Image.open(sys.argv[1]).size)
"""


def test_a_program_that_imports_us_keeps_its_guard_and_may_set_it(tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(REFUSED)
    done = subprocess.run([sys.executable, "-c", OTHER_PROGRAM, str(file)], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "guarded, then (20000, 20000)\n")


@pytest.mark.parametrize(("encoded", "pixel_count"), [(WARNED, 100_000_000), (REFUSED, 400_000_000)])
def test_our_own_limits_say_the_figures(encoded, pixel_count):
    """Without a word from Pillow, which would be an error here."""
    with pytest.raises(PictureTooLargeError) as caught:
        decode(encoded, SPEC)
    assert caught.value.pixel_count == pixel_count
    assert_guarded()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_wider_limit_is_not_narrowed_by_pillow(monkeypatch, kind):
    """A small guard stands for large pictures; a GIF's frame and a WebP's canvas are looked at on their own."""
    encoded = encode(Image.fromarray(np.zeros((40, 60, 3), np.uint8)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(encoded))
    assert decode(encoded, SPEC).shape == (8, 8, 3)
    assert decode(encoded, PixelSpec(resize=40, crop=(40, 40))).shape == (40, 40, 3)  # so is the crop


def test_a_gif_whose_frame_is_larger_than_its_screen(monkeypatch):
    encoded = bytearray(picture(size=(60, 40), form="GIF"))
    encoded[6:10] = b"\x01\x00\x01\x00"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(bytes(encoded), SPEC).shape == (8, 8, 3)
    with pytest.raises(PictureTooLargeError) as caught:
        decode(bytes(encoded), SPEC, Limits(max_pixels=1000))
    assert caught.value.pixel_count == 2400


@pytest.mark.parametrize("from_file", [True, False])
def test_a_header_is_read_however_large_the_picture(tmp_path, from_file):
    file = tmp_path / "a.png"
    file.write_bytes(REFUSED)
    with open_picture(file if from_file else BytesIO(REFUSED)) as opened:
        assert opened.size == (20_000, 20_000)
    assert_guarded()


def test_other_threads_are_guarded_meanwhile(monkeypatch):
    decoding, go_on, load = threading.Event(), threading.Event(), PngImageFile.load

    def slow(opened: PngImageFile):
        decoding.set()
        go_on.wait(10)
        return load(opened)

    monkeypatch.setattr(PngImageFile, "load", slow)
    thread = threading.Thread(target=decode, args=(picture(), SPEC))
    thread.start()
    try:
        assert decoding.wait(10)
        assert_guarded()
    finally:
        go_on.set()
        thread.join()


def test_the_guard_is_back_after_an_error_and_after_the_outer_of_two_blocks():
    def fail() -> None:
        with pillow_guard.lifted():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert_guarded()
    with pillow_guard.lifted():
        with pillow_guard.lifted():
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Image.open(BytesIO(REFUSED))
    assert_guarded()
