"""What the C library does with freed memory. Without effect where it is not glibc; see mallopt(3)."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h


def keep(most_bytes: int, largest_block_bytes: int) -> None:
    """Has the allocator reuse what was freed instead of giving it back to the kernel and asking again: fresh pages cost
    time.

    Args:
        most_bytes: Which may stay.
        largest_block_bytes: Of blocks that are reused; larger ones are given back at once.
    """
    _set({M_TRIM_THRESHOLD: most_bytes, M_MMAP_THRESHOLD: largest_block_bytes})


def keep_all() -> None:
    """As `keep`, without a bound."""
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})  # large blocks come from the heap too, whose top stays


def release() -> None:
    """Gives back what the allocator holds without need."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
