"""Servers that end and come again in turns while they are called."""

import itertools
import sys
import time

from tests.faults.callers import CALLS, FEWEST_RESTARTS


def in_turns(servers, begin, end, callers, pause_s):
    """Ends each of the servers and begins another in its place, until there were calls and turns enough.

    Args:
        servers: Those that serve; replaced one by one.
        begin: Starts one on a port.
        end: Ends one.
        callers: Who calls meanwhile.
        pause_s: Between the turns.
    """
    ends = 0
    for turn in itertools.cycle(range(len(servers))):
        if callers.answered >= CALLS and ends >= FEWEST_RESTARTS:
            break
        time.sleep(pause_s)
        end(servers[turn])
        servers[turn] = begin(port=servers[turn].port)
        ends += 1
    sys.stdout.write(
        f"{callers.answered} answered, {len(callers.lost)} lost, {ends} turns, longest {max(callers.seconds):.3f} s\n"
    )


def leave(server):
    assert server.stop() == 0


def die(server):
    """As by the kernel for want of memory, or with its machine's power: nobody is told."""
    server.kill()
