"""A few numbers that all fronts of a server read without asking: how many permits each holds, how long a new input
would wait. Shared memory; one writer for each number.
"""

import mmap
import os

NUMBER_BYTES = 8


class Board:
    """The numbers, in one page."""

    def __init__(self, front_count: int, descriptor: int | None = None) -> None:
        """Makes a board, or maps one.

        Args:
            front_count: How many fronts hold permits.
            descriptor: Of a board's memory; None makes one.
        """
        if descriptor is None:
            descriptor = os.memfd_create("taxon-board")
            os.ftruncate(descriptor, mmap.PAGESIZE)
        self.descriptor = descriptor
        self._front_count = front_count
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._numbers = memoryview(self._map).cast("d")

    def held_count(self) -> int:
        """Permits that all fronts hold together."""
        if self._front_count == 1:
            return int(self._numbers[1])
        return int(sum(self._numbers[1 : 1 + self._front_count]))

    def held_of(self, front: int) -> float:
        """Permits that one front holds."""
        return self._numbers[1 + front]

    def hold(self, front: int, count: int) -> None:
        """Adds to the permits of one front."""
        self._numbers[1 + front] += count

    def forget(self, front: int) -> None:
        """A front that has died holds nothing."""
        self._numbers[1 + front] = 0

    @property
    def predicted_wait_s(self) -> float:
        """How long a new input would wait for a worker."""
        return self._numbers[0]

    @predicted_wait_s.setter
    def predicted_wait_s(self, seconds: float) -> None:
        self._numbers[0] = seconds
