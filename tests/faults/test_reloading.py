"""New versions come and old ones go under load: no call is lost, and memory stays what it was.

`TAXON_FAULT_VERSIONS=200 make test-faults` has so many; by default there are a few.
"""

import os
import shutil
import sys
import time

import pytest

from taxon.client import Client
from taxon.service.machine import private_bytes
from tests.fakes import toy_bundle
from tests.faults.callers import Callers
from tests.faults.served import until

pytestmark = pytest.mark.faults

VERSIONS = int(os.environ.get("TAXON_FAULT_VERSIONS", "12"))
MIB = 2**20


def test_versions_come_and_go(serve, models):
    server = serve("--workers", "2", "--watch-seconds", "0.1")
    used, took = [], []
    with Callers(server.address) as callers, Client(server.address) as client:

        def served():
            return {int(model.version): model.default_version for model in client.list_models()}

        for _ in range(VERSIONS):
            began = time.monotonic()
            new = toy_bundle(models).manifest.version
            until(lambda new=new: served().get(new))
            took.append(time.monotonic() - began)
            shutil.rmtree(models / "colors" / str(new - 1))
            until(lambda new=new: list(served()) == [new])
            used.append(private_bytes([server.process.pid, *server.workers()]))
    sys.stdout.write(
        f"{VERSIONS} versions, {max(took):.2f} s until served; {callers.answered} answered, {len(callers.lost)} lost, "
        f"longest {max(callers.seconds) * 1e3:.0f} ms, memory {used[2] / MIB:.0f} to {used[-1] / MIB:.0f} MiB\n"
    )
    assert callers.lost == []
    assert callers.answered > 20 * VERSIONS
    assert used[-1] - used[2] < 32 * MIB
