"""Why a picture cannot be kept."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

MOST_PARTS = 10_000
"""Segments, chunks or blocks of one file. Large pictures have a few thousand; millions would hold up a front."""

PartT = TypeVar("PartT")


class UnstrippableError(ValueError):
    """The parts of a picture's file cannot be told apart, so its metadata cannot be left out."""


def counted(parts: Iterable[PartT], most: int = MOST_PARTS) -> Iterator[PartT]:
    """The same.

    Raises:
        UnstrippableError: There are more.
    """
    for number, part in enumerate(parts):
        if number >= most:
            raise UnstrippableError(f"the picture's file has more than {most} parts")
        yield part
