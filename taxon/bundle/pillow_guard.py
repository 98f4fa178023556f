"""Pillow's guard against large pictures: lifted where `Limits` guard, in place for everybody else in the process.

It warns at one size and raises at another, without the figures that a caller needs; `Limits` is stricter and always on.
`Image.MAX_IMAGE_PIXELS` is one for all: to change it would leave other users of Pillow, in a program that only
imports us, without any guard.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_thread = threading.local()
_check = Image._decompression_bomb_check  # noqa: SLF001 - the one place where Pillow's formats ask


@contextmanager
def lifted() -> Iterator[None]:
    """In this thread, until the end of the block or of the decorated function."""
    before = getattr(_thread, "lifted", False)
    _thread.lifted = True
    try:
        yield
    finally:
        _thread.lifted = before


def _check_unless_lifted(size: tuple[int, int], *, error_only: bool = False) -> None:
    if not getattr(_thread, "lifted", False):
        _check(size, error_only=error_only)


Image._decompression_bomb_check = _check_unless_lifted  # noqa: SLF001 - as above
