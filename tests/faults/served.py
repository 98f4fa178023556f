"""`taxon serve` in a process of its own, for tests that play faults."""

import os
import subprocess
import sys
import time
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon.client import Client
from taxon.connection import Connection
from tests.fakes import COLORS, picture

RED = picture(COLORS["red"])
SERVING = health_pb2.HealthCheckResponse.SERVING


class Served:
    def __init__(self, models, *flags, port=0, enter=None, env=(), credentials=None):
        port_file = models.parent / "port"
        port_file.unlink(missing_ok=True)
        words = ["--listen", f"127.0.0.1:{port}", "--port-file", port_file, "--device", "cpu", *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taxon.cli", "serve", "--models", models, *map(str, words)],
            preexec_fn=enter,
            env=os.environ | dict(env),
        )
        until(port_file.exists)
        self.port = int(port_file.read_text())
        self.address = f"127.0.0.1:{self.port}"
        self.channel = Connection(self.address, credentials).channel([("grpc.use_local_subchannel_pool", 1)])
        self.wait_until_ready()

    def wait_until_ready(self):
        request = health_pb2.HealthCheckRequest()
        for answer in health_pb2_grpc.HealthStub(self.channel).Watch(request, timeout=60, wait_for_ready=True):
            if answer.status == SERVING:
                return

    def workers(self):
        return self.children("worker_main")

    def fronts(self):
        return self.children("front_main")

    def children(self, program):
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if program in Path(f"/proc/{pid}/cmdline").read_text()]

    def label(self, image=RED, within_s=10.0):
        with Client(self.address, timeout_s=within_s) as client:
            return client.classify(image).classifications[0].label

    def kill(self):
        self.channel.close()
        self.process.kill()
        self.process.wait(90)

    def stop(self):
        """Returns the exit status."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(90)


def until(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)
