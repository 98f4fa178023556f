"""Faults of the folder of models, played beside a whole server that answers: writers are killed, the disk is full,
files are cut off, the folder goes away and comes back.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from taxon.bundle import store, traffic, version_labels
from taxon.client import Client
from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import model_admin_service_pb2 as admin_pb
from taxon.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from tests.fakes import toy_bundle
from tests.faults.callers import Callers
from tests.faults.hostile import refusal
from tests.faults.served import RED, until

pytestmark = pytest.mark.faults

KILLS = 15
PUBLISHING = """
import sys
from pathlib import Path
from tests.fakes import toy_bundle
print("ready", flush=True)
while True:
    toy_bundle(Path(sys.argv[1]))
"""
LABELLING = """
import itertools, sys
from pathlib import Path
from taxon.bundle import version_labels
print("ready", flush=True)
for number in itertools.count():
    version_labels.write(Path(sys.argv[1]), "colors", "stable", 1 + number % 2)
    version_labels.write(Path(sys.argv[1]), "colors", f"label-{number % 7}", 1)
"""


@contextlib.contextmanager
def killed(script, root, after_s):
    """Runs until then."""
    words = [sys.executable, "-c", script, str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    yield


def index(client):
    return {(model.name, int(model.version)) for model in client.list_models()}


def test_publishers_that_are_killed(serve, models):
    """What is served is whole, and every version that is there is served."""
    server = serve("--workers", "1", "--watch-seconds", "0.1")
    dice = random.Random(0)
    with Callers(server.address, count=2, pause_s=0.01) as callers, Client(server.address) as client:
        for _ in range(KILLS):
            with killed(PUBLISHING, models, dice.uniform(0.02, 0.3)):
                there = {("colors", number) for number in store.versions(models, "colors")}
            for _, number in there:
                store.read(models, "colors", number)  # every byte
            until(lambda there=there: index(client) == there)
        assert len(there) > 2
    assert callers.lost == []
    assert callers.answered > 100
    assert server.label() == "red"


def test_writers_of_labels_that_are_killed(serve, models):
    """The file is the old or the new one at every moment, and the server follows it."""
    toy_bundle(models)
    version_labels.write(models, "colors", "stable", 1)
    server = serve("--workers", "1")
    dice = random.Random(1)
    with Callers(server.address, count=2, pause_s=0.01) as callers, Client(server.address) as client:
        for _ in range(KILLS):
            with killed(LABELLING, models, dice.uniform(0.0, 0.1)):
                declared = traffic.read(models, "colors")
            stable = str(declared.labels["stable"])
            until(lambda stable=stable: client.classify(RED).model_version == stable)
    version_labels.write(models, "colors", "stable", 2)  # nobody holds the lock for ever
    with Client(server.address) as client:
        until(lambda: client.classify(RED).model_version == "2")
    assert callers.lost == []


def test_servers_that_are_killed_while_they_load_and_swap(serve, models):
    """All of the server at once, as the kernel or a machine's end does it; the next one is as if nothing had been."""
    dice = random.Random(2)
    server = serve("--workers", "1", "--watch-seconds", "0.05")
    for _ in range(6):
        new = toy_bundle(models).manifest.version
        version_labels.write(models, "colors", "stable", new)
        time.sleep(dice.uniform(0.0, 0.5))
        workers = server.workers()
        server.process.kill()
        server.stop()
        until(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers), 15)
        server = serve("--workers", "1", "--watch-seconds", "0.05")
        with Client(server.address) as client:
            assert client.classify(RED).model_version == str(new)
            assert index(client) == {("colors", number) for number in range(1, new + 1)}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place):
    with contextlib.suppress(OSError), (place / "filler").open("wb") as file:
        while True:
            os.write(file.fileno(), bytes(4096))


def test_a_full_disk(serve, small_disk):
    models = small_disk / "models"
    for _ in range(2):
        toy_bundle(models)
    version_labels.write(models, "colors", "stable", 1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    # Its other files go beside the models too: a full disk must not end a server that runs.
    server = serve("--workers", "2", "--watch-seconds", "0.1", "--admin-port", admin.split(":")[1], models=models)
    until(lambda: len(server.workers()) == 2)
    time.sleep(1)
    fill(small_disk)
    before = traffic.read(models, "colors")
    with Callers(server.address, count=2, pause_s=0.01) as callers, grpc.insecure_channel(admin) as channel:
        stub = ModelAdminServiceStub(channel)
        with pytest.raises(OSError, match="No space left"):
            toy_bundle(models)
        with pytest.raises(OSError, match="No space left"):
            version_labels.write(models, "colors", "stable", 2)
        with pytest.raises(grpc.RpcError) as caught:
            stub.SetLabel(admin_pb.SetLabelRequest(model_name="colors", label="next", model_version="2"), timeout=10)
        assert refusal(caught.value) == "REPOSITORY_UNUSABLE"
        assert traffic.read(models, "colors") == before
        assert store.versions(models, "colors") == [1, 2]
        assert not list((models / "colors").glob(".*.tmp"))
        os.kill(server.workers()[0], signal.SIGKILL)  # one is started on a full disk too
        until(lambda: len(server.workers()) == 1)
        until(lambda: len(server.workers()) == 2)
        (small_disk / "filler").unlink()
        stub.SetLabel(admin_pb.SetLabelRequest(model_name="colors", label="next", model_version="2"), timeout=10)
        assert toy_bundle(models).manifest.version == 3
        with Client(server.address) as client:
            until(lambda: ("colors", 3) in index(client))
            assert client.classify(RED, version="next").model_version == "2"
    assert callers.lost == []


@pytest.mark.parametrize("part", ["model.onnx", store.MANIFEST, "golden/0.png"])
def test_a_version_that_is_cut_off(serve, models, part):
    """As a copy over a network that broke: refused with its reason, served once it is whole."""
    server = serve("--workers", "1", "--watch-seconds", "0.1")
    with Callers(server.address, count=2, pause_s=0.01) as callers, Client(server.address) as client:
        whole = shutil.copytree(toy_bundle(models.parent / "elsewhere").folder, models.parent / "whole")
        manifest = (whole / store.MANIFEST).read_text().replace('"version": 1', '"version": 2')
        (whole / store.MANIFEST).write_text(manifest)
        broken = shutil.copytree(whole, models.parent / "broken")
        os.truncate(broken / part, (broken / part).stat().st_size // 2)
        broken.rename(models / "colors" / "2")
        until(lambda: "2" in refused(server))
        assert index(client) == {("colors", 1)}
        shutil.copy(whole / part, models / "colors" / "2" / part)
        until(lambda: index(client) == {("colors", 1), ("colors", 2)})
    assert callers.lost == []


def refused(server):
    states = GRPCInferenceServiceStub(server.channel).RepositoryIndex(oip.RepositoryIndexRequest()).models
    return {one.version for one in states if one.state == "UNAVAILABLE" and one.reason}


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_that_goes_away_and_comes_back(serve, models, empty):
    """As a file system that is not mounted for a while: what is served goes on, and new versions come afterwards."""
    server = serve("--workers", "2", "--watch-seconds", "0.1")
    until(lambda: len(server.workers()) == 2)
    away = models.parent / "away"
    with Callers(server.address, count=2, pause_s=0.01) as callers, Client(server.address) as client:
        for _ in range(3):
            models.rename(away)
            if empty:
                models.mkdir()
            time.sleep(1)
            assert index(client)
            if empty:
                models.rmdir()
            away.rename(models)
            new = toy_bundle(models).manifest.version
            until(lambda new=new: client.classify(RED).model_version == str(new))
    assert callers.lost == []
    assert callers.answered > 100
