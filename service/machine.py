"""What the container grants this process, and how it holds memory. Knows nothing of what it is used for."""

import os
from pathlib import Path

from taxon import freed_memory

CGROUP = Path("/sys/fs/cgroup")
KEPT_BYTES = 64 * 2**20
LARGEST_POOLED_BYTES = 16 * 2**20


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


def keep_freed_memory() -> None:
    """Has the allocator reuse what pictures occupied: fresh pages cost a call 0.1 ms."""
    freed_memory.keep(KEPT_BYTES, LARGEST_POOLED_BYTES)
