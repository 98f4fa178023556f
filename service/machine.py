"""What the container grants this process, and how it holds memory. Knows nothing of what it is used for."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from taxon import freed_memory

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
TCP_TABLES = Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")
ESTABLISHED = "01"
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


def memory_limit(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """The bytes that this process and its children may use: the least of the machine's memory and the limits of its
    cgroup (version 1 or 2) and of those around it.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _memory_groups(cgroup, own):
        words = _words(group / "memory.max") + _words(group / "memory.limit_in_bytes")
        limits += [int(word) for word in words if word != "max"]
    return min(limits)


def oom_kill_count(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """Processes of this one's cgroup that the kernel has killed because its memory was used up."""
    for group in _memory_groups(cgroup, own):
        words = _words(group / "memory.events") + _words(group / "memory.oom_control")
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return 0


def private_bytes(pids: Iterable[int]) -> int:
    """The memory that belongs to processes alone (anonymous pages), without what they share."""
    total = 0
    for pid in pids:
        words = _words(Path(f"/proc/{pid}/status"))
        if "RssAnon:" in words:
            total += 1024 * int(words[words.index("RssAnon:") + 1])
    return total


def connection_count(port: int, tables: Iterable[Path] = TCP_TABLES) -> int:
    """Connections to a port, of all processes in this network namespace."""
    count, local = 0, f":{port:04X}"
    for table in tables:
        with contextlib.suppress(OSError), table.open(encoding="ascii") as lines:
            count += sum(words[1].endswith(local) and words[3] == ESTABLISHED for words in map(str.split, lines))
    return count


def _memory_groups(cgroup: Path, own: Path) -> Iterator[Path]:
    """The cgroups that may bound this process's memory, the innermost first. Some of them do not exist: a container may
    see its own cgroup as the root, and its path as it is from outside.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroup / "memory" if controllers else cgroup
        inner = root / path.lstrip("/")
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(root))


def keep_freed_memory() -> None:
    """Has the allocator reuse what pictures occupied: fresh pages cost a call 0.1 ms."""
    freed_memory.keep(KEPT_BYTES, LARGEST_POOLED_BYTES)
