"""What the container grants this process, and how it holds memory. Knows nothing of what it is used for."""

import ctypes
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
KEPT_BYTES = 64 * 2**20
LARGEST_POOLED_BYTES = 16 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def available_cores(cgroup: Path = CGROUP) -> int:
    """The whole cores that this process may use, at least 1: the smaller of its affinity and of its cgroup's
    CPU quota (version 2 or 1), rounded up. The host's core count plays no part.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, -int(-quota // 1)))


def _quota(cgroup: Path) -> float | None:
    """The cores of the CPU quota, None if there is no quota."""
    fields = _words(cgroup / "cpu.max")
    if not fields:
        fields = _words(cgroup / "cpu/cpu.cfs_quota_us") + _words(cgroup / "cpu/cpu.cfs_period_us")
    if len(fields) != 2 or fields[0] in ("max", "-1"):
        return None
    return int(fields[0]) / int(fields[1])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def release_freed_memory() -> None:
    """Gives back what the allocator holds without need: opening a graph takes three times what is kept of it. Without
    effect where the C library is not glibc.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def keep_freed_memory() -> None:
    """Has the allocator reuse what pictures occupied instead of giving it back after each and asking again: fresh pages
    cost a call 0.1 ms. At most `KEPT_BYTES` stay. Without effect where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_POOLED_BYTES)
