"""The time of day jumps by a year and back under a whole server: it must not notice.

`TAXON_FAKETIME` names libfaketime's library (`libfaketimeMT.so.1`), where Debian's package has not put it.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from taxon.bundle import version_labels
from taxon.client import Client
from tests.fakes import toy_bundle
from tests.faults.callers import Callers
from tests.faults.served import RED, until

PACKAGED = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
LIBRARY = os.environ.get("TAXON_FAKETIME") or (str(PACKAGED[0]) if PACKAGED else "")
pytestmark = [pytest.mark.faults, pytest.mark.skipif(not LIBRARY, reason="libfaketime is not here")]


def test_jumps_of_the_time_of_day(serve, models, tmp_path):
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    faked = {
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as the kernel has it: nobody can set that clock
        "NO_FAKE_STAT": "1",
    }
    server = serve("--workers", "2", "--watch-seconds", "0.1", env=faked)
    until(lambda: len(server.workers()) == 2)
    version_labels.write(models, "colors", "stable", 1)
    # A deadline reaches the server as what is left of it, so calls with short ones are the first to suffer.
    with Callers(server.address, count=2, pause_s=0.01, timeout_s=5) as callers, Client(server.address) as client:
        for jump in ("+365d", "-365d", "+0", "-2h", "+2h"):
            offset.write_text(f"{jump}\n")
            time.sleep(1.5)
            new = toy_bundle(models).manifest.version
            version_labels.write(models, "colors", "stable", new)
            until(lambda new=new: client.classify(RED).model_version == str(new), 20)
            assert len(server.workers()) == 2
    sys.stdout.write(
        f"5 jumps: {callers.answered} answered, {len(callers.lost)} lost, longest {max(callers.seconds):.3f} s\n"
    )
    assert callers.lost == []
    assert callers.answered > 100
    assert max(callers.seconds) < 3
