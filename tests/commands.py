"""Taxon's commands in processes of their own, as people call them."""

import subprocess
import sys
import time
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
START_S = 120


def command(*words):
    return [sys.executable, "-m", "taxon.cli", *map(str, words)]


def taxon(*words, code=0, timeout_s=240, env=None):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout_s, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@contextmanager
def serving(models, *flags, **options):
    """A server that is ready: its process, and its address."""
    port_file = models.parent / "port"
    port_file.unlink(missing_ok=True)
    where = ["--models", models, "--listen", "127.0.0.1:0", "--port-file", port_file]
    with subprocess.Popen(command("serve", *where, *flags), text=True, **options) as process:
        try:
            until = time.monotonic() + START_S
            while not port_file.exists():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.01)
            address = f"127.0.0.1:{port_file.read_text().strip()}"
            with grpc.insecure_channel(address) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=START_S)
                assert next(answer for answer in watch if answer.status == SERVING)
                watch.cancel()
            yield process, address
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # else leaving the process would wait for it for ever
                process.kill()
    assert process.returncode == 0
