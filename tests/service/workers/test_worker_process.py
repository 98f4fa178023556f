"""Real processes: how they are started, what they find, how they end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taxon.service.runtime.device import CPU, CUDA, TENSORRT, Device
from taxon.service.scheduling.arena import Arena
from taxon.service.workers import worker_process
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.service.workers.worker_protocol import AS_JSON, Load, Run, WorkerSettings
from tests.fakes import COLORS, picture
from tests.service.workers.test_worker_main import order, put

# Tells what it was started with, then waits to be ended.
PARROT = """
import json, os, pickle, socket, struct, sys
socket_number, *arenas = map(int, sys.argv[1].split(","))
server = socket.socket(fileno=socket_number)
told = pickle.dumps([dict(os.environ), json.loads(sys.argv[2]), [os.fstat(one).st_size for one in arenas]])
server.sendall(struct.pack("=I", len(told)) + told)
server.recv(1)
sys.exit(7)
"""


def settings_of(models="models", device=Device(CPU), **changes):
    usual = {
        "variant": "fp32",
        "buckets": (1, 2),
        "max_batch_size": 128,
        "max_picture_bytes": 100_000,
        "max_picture_pixels": 1_000_000,
        "log_format": "json",
        "log_level": "info",
    }
    return WorkerSettings(models=str(models), device=device, **usual | changes)


class Started:
    """A process and what it said."""

    def __init__(self, start, number=0, role="whole"):
        self.messages, self.ended = asyncio.Queue(), asyncio.Event()
        self.handle = start(number, role, self.messages.put_nowait, self.ended.set)

    async def message(self):
        async with asyncio.timeout(60):
            return await self.messages.get()

    async def end(self):
        async with asyncio.timeout(60):
            await self.ended.wait()

    def wait(self, timeout_s=30.0):
        return self.handle.wait(timeout_s)


@pytest.fixture
def arena():
    made = Arena(2**20)
    yield made
    made.close()


@pytest.fixture
def started(arena):
    made = []

    def start(settings=settings_of(), number=0, role="whole"):
        made.append(Started(WorkerProcesses(settings, [arena.descriptor]), number, role))
        return made[-1]

    yield start
    for one in made:
        one.handle.kill()
        one.handle.close()
        one.wait()


@pytest.fixture
def parrots(monkeypatch):
    monkeypatch.setattr(worker_process, "PROGRAM", (sys.executable, "-S", "-c", PARROT))


@pytest.mark.parametrize(
    ("provider", "visible", "number", "count", "seen"),
    [
        (CUDA, None, 0, 4, "0"),
        (CUDA, None, 3, 4, "3"),
        (CUDA, None, 5, 4, "1"),  # more workers than devices
        (CUDA, None, -2, 4, "2"),  # one that only proves
        (CUDA, "", 1, 2, "1"),
        (CUDA, "4,6", 0, 2, "4"),
        (CUDA, "4,6", 1, 2, "6"),
        (TENSORRT, None, 1, 2, "1"),
        (CUDA, "GPU-1a,GPU-2b", 3, 2, "GPU-2b"),
        (CUDA, "6", 0, 1, "6"),
        (CUDA, "MIG-3c", 1, 1, "MIG-3c"),
    ],
)
async def test_each_worker_sees_one_device(started, parrots, monkeypatch, provider, visible, number, count, seen):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment, _, _ = await started(settings_of(device=Device(provider, {}, count)), number).message()
    assert environment["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize(("device", "role"), [(Device(CPU), "whole"), (Device(CUDA, {}, 2), "decode")])
async def test_who_runs_nothing_on_a_gpu_sees_what_the_server_sees(started, parrots, monkeypatch, device, role):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    environment, _, _ = await started(settings_of(device=device), 1, role).message()
    assert environment["CUDA_VISIBLE_DEVICES"] == "4,6"


async def test_a_worker_is_told_its_settings_its_role_and_the_arenas(started, parrots, arena):
    environment, settings, sizes = await started(settings_of(thread_count=3), role="run").message()
    assert environment["OMP_NUM_THREADS"] == "3"
    assert settings["role"] == "run"
    assert settings["buckets"] == [1, 2]
    assert sizes == [arena.size]


async def test_who_is_closed_ends_by_itself_and_its_end_is_not_told(started, parrots):
    one = started()
    await one.message()
    one.handle.close()
    assert one.wait() == 7
    await asyncio.sleep(0)
    assert not one.ended.is_set()


async def test_the_end_of_one_that_is_killed_is_told(started, parrots):
    one = started()
    await one.message()
    one.handle.kill()
    await one.end()
    assert one.wait() == -signal.SIGKILL
    one.handle.kill()  # twice is no error


async def test_who_hangs_after_it_was_closed_is_killed(started, parrots):
    one = started()
    await one.message()
    os.kill(one.handle.pid, signal.SIGSTOP)
    one.handle.close()
    assert one.wait(0.05) == -signal.SIGKILL


async def test_a_worker_that_cannot_be_started_leaves_nothing_behind(started, monkeypatch):
    monkeypatch.setattr(worker_process, "PROGRAM", ("/nowhere/python",))
    before = descriptor_count()
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            started()
    assert descriptor_count() == before


def descriptor_count():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_worker_finds_its_own_program_wherever_the_server_was_started(
    started, models, arena, tmp_path, monkeypatch
):
    """A folder that holds packages of the same names is not searched. The real thing: it loads and runs as well."""
    for package in ("service", "taxon"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('another project')\n")
    monkeypatch.chdir(tmp_path)
    one = started(settings_of(models))
    one.handle.send(Load(1, "colors", 1, None))
    loaded = await one.message()
    assert loaded.refused == ""
    assert loaded.manifest.labels == tuple(COLORS)
    pictures = [put(arena, picture(color)) for color in COLORS.values()][1:]
    one.handle.send(order(*pictures, bucket=2))
    done = await one.message()
    assert [scores.argmax() for scores in done.outcomes] == [1, 2]
    one.handle.send(Run(99, 1, pictures[:1], [1e9]))  # a fault of ours ends it
    await one.end()
    assert one.wait() == 1


async def test_signals_to_the_whole_group_do_not_end_a_worker(started, models):
    one = started(settings_of(models))
    one.handle.send(Load(1, "colors", 1, None))
    await one.message()
    for signum in (signal.SIGINT, signal.SIGTERM):
        os.kill(one.handle.pid, signum)
    one.handle.send(Load(2, "colors", 9, None))
    assert (await one.message()).refused
    one.handle.close()
    assert one.wait() == 0


# Starts a worker, waits until it works, tells its number, hangs it, and waits to be killed.
PARENT = """
import asyncio, os, signal, sys
from taxon.service.scheduling.arena import Arena
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.service.workers.worker_protocol import AS_JSON, Load

async def main():
    answered = asyncio.Event()
    start = WorkerProcesses(AS_JSON.validate_json(sys.argv[1]), [Arena(4096).descriptor])
    handle = start(0, "whole", lambda message: answered.set(), lambda: None)
    handle.send(Load(1, "none", 1, None))
    await answered.wait()
    os.kill(handle.pid, signal.SIGSTOP)
    print(handle.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_worker_that_hangs_dies_with_its_server(tmp_path):
    """It does not see that its socket has been closed; stopped, it stands for one that hangs in native code."""
    words = [sys.executable, "-c", PARENT, AS_JSON.dump_json(settings_of(tmp_path)).decode()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        pid = int(server.stdout.readline())
        assert lives(pid)
        server.kill()
    given_up_at = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < given_up_at
        time.sleep(0.01)


def lives(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # its end may be nobody's to hear
