"""Shared memory for the inputs on their way to the workers: written once by a front, read where they are run.

Every input has a block. Its first byte says whether anybody still waits for it; behind a margin lies the input itself,
which whoever decodes it may overwrite with the array. The arena's size is the bound of what a server holds of its
callers' inputs. One process allocates; all others map the same memory.
"""

import bisect
import mmap
import os
from typing import Any, NamedTuple

import numpy as np

MARGIN_BYTES = 64
"""Before every input: its flag, and room so that arrays lie as vector instructions like them."""
# Touched memory is given back when nothing is held and more than this was touched.
KEPT_BYTES = 32 * 2**20
MADV_REMOVE = getattr(mmap, "MADV_REMOVE", 9)


class Input(NamedTuple):
    """Where an input lies, and what it is."""

    arena: int
    offset: int
    byte_count: int
    dtype: "np.dtype[Any] | None" = None
    """None: it is an encoded picture."""
    shape: tuple[int, ...] = ()
    explained: bool = False
    """Whether it is answered with all that an explanation needs, see `explained`."""

    @property
    def kind(self) -> object:
        """Equal for inputs that can be stacked and are answered alike."""
        return self.dtype, self.shape, self.explained


class Arena:
    """The allocating side. Lowest addresses first, so that what is touched stays small."""

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        """Reserves addresses; memory is taken when it is first written.

        Args:
            size: Bytes of all inputs together, with or without a block.
            descriptor: Of the memory of an arena in which nothing is held; None makes one.
        """
        if descriptor is None:
            descriptor = os.memfd_create("taxon-inputs")
            # Twice the addresses, which cost nothing: holes between blocks must not keep out what may come in.
            os.ftruncate(descriptor, 2 * -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._free_bytes = self.size // 2
        self.reserved_count = 0
        """Inputs that have been counted in and not out."""
        self._map = mmap.mmap(self.descriptor, self.size)
        self.memory = memoryview(self._map)
        self._gaps = [(0, self.size)]
        self._lengths: dict[int, int] = {}
        self._touched = 0

    @property
    def held_count(self) -> int:
        """Blocks that have been allocated and not freed."""
        return len(self._lengths)

    def reserve(self, byte_count: int) -> bool:
        """Counts an input in, if it fits; its block may come later."""
        if byte_count > self._free_bytes:
            return False
        self._free_bytes -= byte_count
        self.reserved_count += 1
        return True

    def release(self, byte_count: int) -> None:
        """Counts an input out."""
        self._free_bytes += byte_count
        self.reserved_count -= 1

    def allocate(self, byte_count: int) -> int | None:
        """The offset of a new block for an input of so many bytes; None if there is no room."""
        length = -(-(byte_count + MARGIN_BYTES) // MARGIN_BYTES) * MARGIN_BYTES
        for index, (begin, end) in enumerate(self._gaps):
            if end - begin < length:
                continue
            if end - begin == length:
                del self._gaps[index]
            else:
                self._gaps[index] = begin + length, end
            self._lengths[begin] = length
            self._touched = max(self._touched, begin + length)
            self.memory[begin] = 0
            return begin
        return None

    def write(self, offset: int, payload: "bytes | memoryview | np.ndarray[Any, Any]") -> None:
        """Copies an input into its block."""
        begin = offset + MARGIN_BYTES
        if isinstance(payload, np.ndarray):
            np.ndarray(payload.shape, payload.dtype, self.memory, begin)[...] = payload
        else:
            self.memory[begin : begin + len(payload)] = payload

    def free(self, offset: int) -> None:
        """Gives a block back, after which nobody may touch it."""
        begin, end = offset, offset + self._lengths.pop(offset)
        index = bisect.bisect(self._gaps, (begin, end))
        if index < len(self._gaps) and self._gaps[index][0] == end:
            end = self._gaps.pop(index)[1]
        if index and self._gaps[index - 1][1] == begin:
            index -= 1
            begin = self._gaps.pop(index)[0]
        self._gaps.insert(index, (begin, end))
        if not self._lengths and self._touched > KEPT_BYTES:
            self._map.madvise(MADV_REMOVE, 0, self.size)
            self._touched = 0

    def abandon(self, offset: int) -> None:
        """Says that nobody waits for a block's input any more."""
        self.memory[offset] = 1

    def close(self) -> None:
        """Gives everything back."""
        self.memory.release()
        self._map.close()
        os.close(self.descriptor)


class ArenaView:
    """The side of a process that reads inputs."""

    def __init__(self, descriptor: int) -> None:
        """Maps an arena.

        Args:
            descriptor: Of the arena's memory; closed here.
        """
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        os.close(descriptor)
        self._memory = memoryview(self._map)

    def gone(self, offset: int) -> bool:
        """Whether nobody waits for a block's input any more."""
        return self._memory[offset] != 0

    def input(self, offset: int, byte_count: int) -> memoryview:
        """A block's input, in place."""
        begin = offset + MARGIN_BYTES
        return self._memory[begin : begin + byte_count]
