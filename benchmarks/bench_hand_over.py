"""What it costs to hand an encoded picture to a worker, without anything around it: this checkout against another.

    python -m benchmarks.bench_hand_over --before CHECKOUT [--kb 130] [--batch 1] [--count 3000] [--rounds 7] [--quick]

One process gives orders to another over a socket pair and waits for each answer, as front and worker do; the other
takes every picture in hand and answers. Each side runs its own checkout's messages: this one writes pictures into
shared memory, the one before sent them over the socket. The last line is one JSON object: medians over the
interleaved rounds of the CPU time per picture of both ends, in microseconds, and before ÷ after.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.conditions import conditions

# Each program is run by the checkout that it speaks for; `give` and `take` are one picture's way.
COMMON = """
import os, socket, sys, time
size, batch, count = map(int, sys.argv[1:])
ours, theirs = socket.socketpair()
for end in (ours, theirs):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
picture = memoryview(os.urandom(size))
def worker():
    for _ in range(count):
        for taken in take():
            assert len(taken) == size and taken[-1] == picture[-1]
        theirs.sendall(b".")
def front():
    for _ in range(count):
        give()
        assert ours.recv(1) == b"."
"""
RUN = """
pid = os.fork()
if not pid:
    begin = time.process_time(); worker()
    theirs.sendall(b"%d" % ((time.process_time() - begin) * 1e9)); os._exit(0)
begin = time.process_time(); front()
spent = time.process_time() - begin
print(spent * 1e6 / count / batch, int(ours.recv(64)) / 1e3 / count / batch)
"""
BEFORE = (
    COMMON
    + """
from service import frames
def give():
    message = frames.Run("m", 1, batch, (time.monotonic(),) * batch, ())
    pieces = frames.pack(message, [picture] * batch)
    left = [memoryview(piece) for piece in pieces]
    while left:
        sent = ours.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if left:
            left[0] = left[0][sent:]
def exactly(n):
    buffer = bytearray(n); view = memoryview(buffer)
    while n:
        got = theirs.recv_into(view[-n:]); n -= got
    return memoryview(buffer)
def take():
    pickled, payload = frames.HEADER.unpack(exactly(frames.HEADER.size))
    body = exactly(pickled + payload)
    return frames.unpack(body[:pickled], body[pickled:])[1]
"""
    + RUN
)
AFTER = (
    COMMON
    + """
from taxon.service.scheduling.arena import Arena, ArenaView, Input
from taxon.service.workers.worker_protocol import Run, pack, unpacked
arena = Arena(2**28)
view = ArenaView(os.dup(arena.descriptor))
offsets = []
def give():
    while offsets:
        arena.free(offsets.pop())
    for _ in range(batch):
        offsets.append(arena.allocate(size)); arena.write(offsets[-1], picture)
    inputs = [Input(0, offset, size) for offset in offsets]
    ours.sendall(pack(Run(1, batch, inputs, [time.monotonic()] * batch)))
received = bytearray()
def take():
    while True:
        received.extend(theirs.recv(2**18))
        for message in unpacked(received):
            return [view.input(one.offset, one.byte_count) for one in message.inputs]
"""
    + RUN
)


def side(checkout: Path, program: str, options: argparse.Namespace) -> dict[str, float]:
    """CPU microseconds per picture of giving and of taking it."""
    words = [str(round(options.kb * 1000)), str(options.batch), str(options.count)]
    command = [sys.executable, "-P", "-c", program, *words]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=True
    )
    front, worker = map(float, done.stdout.split())
    return {"front_us": front, "worker_us": worker, "both_us": front + worker}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--kb", type=float, default=130)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.count = 1, 100
    here = Path(__file__).parents[1]
    sides: dict[str, Callable[[], dict[str, float]]] = {
        "before": lambda: side(options.before.resolve(), BEFORE, options),
        "after": lambda: side(here, AFTER, options),
    }
    rounds = []
    for number in range(options.rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        rounds.append({name: sides[name]() for name in order})
    medians = {
        name: {key: round(statistics.median(one[name][key] for one in rounds), 2) for key in rounds[0][name]}
        for name in sides
    }
    ratios = {
        key: round(statistics.median(one["before"][key] / one["after"][key] for one in rounds), 3)
        for key in rounds[0]["after"]
    }
    asked = {"kb": options.kb, "batch": options.batch, "rounds": options.rounds}
    print(json.dumps({"benchmark": "hand_over", **asked, **conditions(), **medians, "ratios": ratios}))


if __name__ == "__main__":
    main()
