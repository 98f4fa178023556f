"""Servers behind the balancer of a gRPC client, restarted or killed in turns under load: no call is lost.

`TAXON_FAULT_CALLS=200000 make test-faults` asks so many; by default a few thousand are.
"""

import functools
import sys
import time

import pytest

from tests.faults.callers import CALLS, KINDS, Callers
from tests.faults.turns import die, in_turns, leave

pytestmark = pytest.mark.faults

# With the servers' defaults where there is time for them.
FLAGS = ("--workers", "1") if CALLS > 10_000 else ("--workers", "1", "--max-connection-age-seconds", "2")


@pytest.mark.parametrize("kind", KINDS)
def test_restarts_in_turns_lose_no_call(serve, kind):
    begin = functools.partial(serve, *FLAGS)
    servers = [begin(), begin()]
    with Callers("ipv4:" + ",".join(server.address for server in servers), KINDS[kind]) as callers:
        in_turns(servers, begin, leave, callers, pause_s=1)
    assert callers.lost == []
    assert max(callers.seconds) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_three_that_is_killed_costs_no_call(serve, kind):
    begin = functools.partial(serve, *FLAGS)
    servers = [begin(), begin(), begin()]
    with Callers("ipv4:" + ",".join(server.address for server in servers), KINDS[kind]) as callers:
        in_turns(servers, begin, die, callers, pause_s=2)
    assert callers.lost == []
    assert max(callers.seconds) < 3


def test_connections_that_reach_their_age_lose_no_call(serve):
    """And the client is led to another one again and again."""
    server = serve("--workers", "1", "--max-connection-age-seconds", "0.2")
    with Callers(server.address) as callers:  # which retry nothing
        time.sleep(10)
    sys.stdout.write(f"{callers.answered} answered, longest {max(callers.seconds):.3f} s\n")
    assert callers.answered > 500
    assert callers.lost == []
