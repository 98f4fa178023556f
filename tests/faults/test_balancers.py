"""Servers behind nginx and behind Envoy, as `deploy` has them, that end in turns under load: no call is lost.

`TAXON_NGINX` and `TAXON_ENVOY` name the programs where they are not in the PATH. `TAXON_FAULT_CALLS` is how many calls
each test makes at least.
"""

import contextlib
import functools
import grp
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.faults.callers import KINDS, Callers
from tests.faults.served import until
from tests.faults.turns import die, in_turns, leave

pytestmark = pytest.mark.faults

DEPLOY = Path(__file__).parents[2] / "deploy"
FRONT, FIRST, SECOND = 8080, 50051, 50052
"""Ports in the recipes."""
FLAGS = {
    "nginx": ("--workers", "1", "--max-connection-age-seconds", "2", "--bind-when-ready", "true"),
    "envoy": ("--workers", "1", "--max-connection-age-seconds", "2", "--drain-delay-seconds", "2"),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def recipe(file, front, servers):
    """The file with these ports; the second server's line again for each further one."""
    first, *others = servers
    lines = []
    for line in (DEPLOY / file).read_text(encoding="utf-8").splitlines():
        lines += [line.replace(str(SECOND), str(other)) for other in others] if str(SECOND) in line else [line]
    text = "\n".join(lines)
    for port, other in {FRONT: front, FIRST: first}.items():
        assert str(port) in text
        text = text.replace(str(port), str(other))
    assert all(str(port) in text for port in servers)
    return text


def nginx(program, folder, *ports):
    """How it is started."""
    (folder / "taxon.conf").write_text(recipe("nginx/taxon.conf", *ports), encoding="utf-8")
    temporary = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"user {pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name};"
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        f" http {{ access_log {folder}/access.log; {temporary} include {folder}/taxon.conf; }}",
        encoding="utf-8",
    )
    return [program, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"]


def envoy(program, folder, *ports):
    (folder / "taxon.yaml").write_text(recipe("envoy/taxon.yaml", *ports), encoding="utf-8")
    words = ["--concurrency", "1", "--log-level", "warn", "--use-dynamic-base-id"]
    return [program, "-c", folder / "taxon.yaml", *words]


@contextlib.contextmanager
def balancer(kind, folder, servers):
    """Its port."""
    program = os.environ.get(f"TAXON_{kind.upper()}") or shutil.which(kind)
    if program is None:
        pytest.skip(f"no {kind} is here: see the recipe deploy/{kind}")
    port = free_port()
    ports = [server.port for server in servers]
    process = subprocess.Popen({"nginx": nginx, "envoy": envoy}[kind](program, folder, port, ports))
    try:
        until(lambda: is_open(port))
        assert process.poll() is None
        yield port
    finally:
        process.terminate()
        process.wait(30)


def called_in_turns(serve, folder, kind, client, count, end):
    """So many servers behind a balancer, ended in turns while they are called."""
    begin = functools.partial(serve, *FLAGS[kind])
    servers = [begin() for _ in range(count)]
    with balancer(kind, folder, servers) as port:
        warm = Callers(f"127.0.0.1:{port}", KINDS[client], count=1)
        with warm:  # health checks have found one at least
            until(lambda: warm.answered)
        with Callers(f"127.0.0.1:{port}", KINDS[client]) as callers:
            # A health check's period and more: the others are known to serve again.
            in_turns(servers, begin, end, callers, pause_s=2.5)
    assert callers.lost == []
    assert max(callers.seconds) < 5


@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FLAGS)
def test_restarts_in_turns_behind_a_balancer_lose_no_call(serve, tmp_path, kind, client):
    called_in_turns(serve, tmp_path, kind, client, count=2, end=leave)


@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FLAGS)
def test_one_of_three_that_is_killed_behind_a_balancer_costs_no_call(serve, tmp_path, kind, client):
    called_in_turns(serve, tmp_path, kind, client, count=3, end=die)
