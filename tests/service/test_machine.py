import os
import socket

import pytest

from taxon.service.machine import available_cores, connection_count, memory_limit, oom_kill_count, private_bytes

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, AFFINITY),
        ({"cpu.max": "max 100000"}, AFFINITY),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, min(2, AFFINITY)),
        ({"cpu.max": "6400000 100000"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "80000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_cores_follow_the_containers_quota(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == cores


PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 2**20


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {}, PHYSICAL),
        ("0::/\n", {"memory.max": "max"}, PHYSICAL),
        ("0::/\n", {"memory.max": str(700 * MIB)}, 700 * MIB),
        # Of groups inside one another the narrowest counts.
        ("0::/pod/c\n", {"pod/c/memory.max": "max", "pod/memory.max": str(300 * MIB)}, 300 * MIB),
        # A container that sees its own group as the root, and its path from outside.
        ("4:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": str(512 * MIB)}, 512 * MIB),
        ("4:memory:/a\n3:cpu:/b\n", {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, PHYSICAL),
    ],
)
def test_memory_follows_the_containers_limit(tmp_path, own, files, limit):
    write(tmp_path / "cgroup", files)
    write(tmp_path, {"own": own})
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == limit


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("0::/\n", {"memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n"}, 2),
        ("4:memory:/a\n", {"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
        ("0::/\n", {}, 0),
    ],
)
def test_kills_for_want_of_memory_are_counted(tmp_path, own, files, count):
    write(tmp_path / "cgroup", files)
    write(tmp_path, {"own": own})
    assert oom_kill_count(tmp_path / "cgroup", tmp_path / "own") == count


def test_the_memory_of_processes():
    before = private_bytes([os.getpid(), 2**22])  # no such process
    held = bytearray(b"1" * (64 * MIB))
    assert 60 * MIB < private_bytes([os.getpid()]) - before < 80 * MIB
    del held


def test_connections_to_a_port_are_counted_and_no_others(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        assert connection_count(port) == 0
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(other.getsockname()):
            assert connection_count(port) == 1
    assert connection_count(port, [tmp_path / "missing"]) == 0
