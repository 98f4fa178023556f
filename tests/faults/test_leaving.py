"""Two servers behind the balancer of a gRPC client, restarted in turns under load: no call is lost.

`TAXON_FAULT_CALLS=200000 make test-faults` asks so many; by default a few thousand are.
"""

import itertools
import sys
import time

import pytest

from tests.faults.callers import CALLS, FEWEST_RESTARTS, KINDS, Callers

pytestmark = pytest.mark.faults

# With the servers' defaults where there is time for them.
FLAGS = ("--workers", "1") if CALLS > 10_000 else ("--workers", "1", "--max-connection-age-seconds", "2")


@pytest.mark.parametrize("kind", KINDS)
def test_restarts_in_turns_lose_no_call(serve, kind):
    servers = [serve(*FLAGS), serve(*FLAGS)]
    restarts = 0
    with Callers("ipv4:" + ",".join(server.address for server in servers), KINDS[kind]) as callers:
        for turn in itertools.cycle((0, 1)):
            if callers.answered >= CALLS and restarts >= FEWEST_RESTARTS:
                break
            time.sleep(1)
            assert servers[turn].stop() == 0
            servers[turn] = serve(*FLAGS, port=servers[turn].port)
            restarts += 1
    longest_s = max(callers.seconds)
    sys.stdout.write(f"{kind}: {callers.answered} answered, {restarts} restarts, longest {longest_s:.3f} s\n")
    assert callers.lost == []
    assert longest_s < 3


def test_connections_that_reach_their_age_lose_no_call(serve):
    """And the client is led to another one again and again."""
    server = serve("--workers", "1", "--max-connection-age-seconds", "0.2")
    with Callers(server.address) as callers:  # which retry nothing
        time.sleep(10)
    sys.stdout.write(f"{callers.answered} answered, longest {max(callers.seconds):.3f} s\n")
    assert callers.answered > 500
    assert callers.lost == []
