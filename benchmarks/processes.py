"""What a server and its children cost: CPU seconds and memory, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process and its descendants, in MB."""

    rss_mb: float
    """Resident sizes added up: what they share counts once for each."""
    pss_mb: float
    """What they share counts once."""


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text(encoding="ascii").split()
    ]
    return [pid, *(each for child in children for each in family(child))]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    return sum(cpu_s_of(each) for each in family(pid))


def cpu_s_of(pid: int) -> float:
    """CPU seconds of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def busy_s() -> float:
    """CPU seconds of everything on the machine."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text(encoding="ascii").split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / TICKS_PER_S


def memory(pid: int) -> Memory:
    """Memory of a process and its descendants now."""
    kilobytes = {"Rss:": 0, "Pss:": 0}
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, size, *_ = line.split()
            if name in kilobytes:
                kilobytes[name] += int(size)
    return Memory(kilobytes["Rss:"] / 1e3, kilobytes["Pss:"] / 1e3)
