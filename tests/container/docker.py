"""Images and containers, by the command `docker`. DOCKER_HOST and the like are Docker's own business."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from taxon.client import Client
from tests.fakes import COLORS, picture
from tests.faults.served import until

ROOT = Path(__file__).parents[2]
RED = picture(COLORS["red"])
LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker(*words, timeout=120, check=True):
    """What it prints on both its outputs, with its status."""
    return subprocess.run(
        ["docker", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=check,
        env=os.environ | {"DOCKER_BUILDKIT": "1"},
    )


def is_here():
    return shutil.which("docker") is not None and docker("info", check=False).returncode == 0


def build(target):
    """The image's name. The network is the machine's, which needs no other to be set up."""
    if there := os.environ.get("TAXON_IMAGES"):  # `taxon`: those of `make image`
        return f"{there}:{target}"
    name = f"taxon-test:{target}"
    docker("build", "--network=host", "--target", target, "--tag", name, ROOT, timeout=1800)
    return name


def inspected(name):
    return json.loads(docker("inspect", name).stdout)[0]


def python(image, script):
    """Runs a script in a container as locked as services are; what it prints."""
    words = ["run", "--rm", "--network", "none", *LOCKED, "--entrypoint", "python3.11", image, "-c", script]
    return docker(*words).stdout


class Container:
    """A service in a container, on a free port of this machine."""

    def __init__(self, image, models, *options, flags=()):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        where = ["--network", "host", "--env", f"TAXON_LISTEN={self.address}", "--volume", f"{models}:/models:ro"]
        self.id = docker("run", "--detach", *LOCKED, *where, *options, image, *flags).stdout.split()[-1]

    @property
    def state(self):
        return inspected(self.id)["State"]

    @property
    def restarts(self):
        return inspected(self.id)["RestartCount"]

    @property
    def log(self):
        return docker("logs", self.id).stdout

    def wait_until_healthy(self):
        """Until the image's own health check says so."""
        until(lambda: self.state.get("Health", {}).get("Status") == "healthy")

    def events(self, since, kind):
        """How often something of the kind has happened to it."""
        when = ["--since", int(since), "--until", int(time.time()) + 1]
        what = ["--filter", f"container={self.id}", "--filter", f"event={kind}", "--format", "{{.Action}}"]
        return len(docker("events", *when, *what).stdout.split())

    def label(self, image=RED, within_s=30.0):
        with Client(self.address, timeout_s=within_s) as client:
            return client.classify(image).classifications[0].label

    def remove(self):
        docker("rm", "--force", "--volumes", self.id)


@contextlib.contextmanager
def running(*words, **options):
    container = Container(*words, **options)
    try:
        yield container
    except BaseException:
        print(container.log)  # noqa: T201 - what pytest shows of a failed test
        raise
    finally:
        container.remove()
