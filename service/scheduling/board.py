"""A few numbers that all fronts of a server read without asking: how many permits each holds, how long a new input
would wait, what each caller has under way. Shared memory; one writer for each number.
"""

import mmap
import os

NUMBER_BYTES = 8
PLACES = 4096
"""Callers that are counted apart."""


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
            os.ftruncate(descriptor, mmap.PAGESIZE + 2 * front_count * PLACES * NUMBER_BYTES)
        self.descriptor = descriptor
        self._front_count = front_count
        self._map = mmap.mmap(descriptor, 0)
        self._numbers = memoryview(self._map).cast("d")
        callers = self._numbers[mmap.PAGESIZE // NUMBER_BYTES :]
        self._under_way, self._made = callers[: front_count * PLACES], callers[front_count * PLACES :]

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
        """A front that has died holds nothing, and no call is under way in it."""
        self._numbers[1 + front] = 0
        for place in range(front * PLACES, (front + 1) * PLACES):
            self._under_way[place] = 0

    def under_way_count(self, place: int) -> int:
        """Calls of one caller that all fronts have under way together."""
        return int(sum(self._under_way[place::PLACES]))

    def made_count(self, place: int) -> int:
        """Calls that one caller has made since the start, at all fronts together."""
        return int(sum(self._made[place::PLACES]))

    def begin(self, front: int, place: int, count: int) -> None:
        """Adds to the calls of one caller that one front has under way."""
        self._under_way[front * PLACES + place] += count

    def make(self, front: int, place: int) -> None:
        """Counts a call that one caller has made at one front."""
        self._made[front * PLACES + place] += 1

    @property
    def predicted_wait_s(self) -> float:
        """How long a new input would wait for a worker."""
        return self._numbers[0]

    @predicted_wait_s.setter
    def predicted_wait_s(self, seconds: float) -> None:
        self._numbers[0] = seconds
