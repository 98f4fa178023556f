"""A load generator for unary gRPC calls that costs a tenth of a gRPC client: see `connections`.

It runs as a process of its own and reports its own CPU time and how late it sent what was due, so that a reader can
tell whether it was the bottleneck.

    python -m benchmarks.load JSON       (see `Plan`); prints one JSON object
"""

import heapq
import json
import random
import selectors
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from benchmarks.connections import Connection, Http1, Plan


def pick(connections: list, sent: int, plan: Plan, finished: deque, selector: selectors.BaseSelector) -> object:
    """The connection for the next call."""
    if plan.http1:
        for connection in connections:
            if connection.free:
                return connection
        connections.append(connected(Http1, plan, finished, selector))
        return connections[-1]
    index = sent % plan.connections
    if connections[index].leaving:  # the calls that it has are finished on it
        connections.append(connections[index])
        connections[index] = connected(Connection, plan, finished, selector)
    return connections[index]


def connected(kind: type, plan: Plan, finished: deque, selector: selectors.BaseSelector) -> Connection | Http1:
    """One more connection, listened to."""
    connection = kind(plan, finished)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    connection.write()
    return connection


def run(plan: Plan) -> dict:
    """Sends the load and reports what came of it; all but `answered` is of the time after the warm-up."""
    bodies = []
    for file in plan.bodies:
        with Path(file).open("rb") as opened:
            message = opened.read()
        bodies.append(message if plan.http1 else b"\0" + struct.pack(">I", len(message)) + message)
    dice = random.Random(plan.seed)
    finished: deque[tuple[float, str]] = deque()
    selector = selectors.DefaultSelector()
    kind = Http1 if plan.http1 else Connection
    connections = [connected(kind, plan, finished, selector) for _ in range(plan.connections)]
    began = time.perf_counter()
    counted_from, ends = began + plan.warmup_s, began + plan.warmup_s + plan.seconds
    due = [began] * plan.callers if plan.callers else [began + dice.expovariate(plan.rate)]
    done: list[tuple[float, float, str]] = []  # due, latency, status
    lags: list[float] = []
    sent = under_way = 0
    cpu_from = 0.0
    while under_way or (due and due[0] < ends):
        now = time.perf_counter()
        if not cpu_from and now >= counted_from:
            cpu_from = time.process_time()
        while due and due[0] <= now and due[0] < ends:
            at = heapq.heappop(due)
            pick(connections, sent, plan, finished, selector).call(at, bodies[sent % len(bodies)])
            lags.append(time.perf_counter() - at)
            sent, under_way = sent + 1, under_way + 1
            if not plan.callers:
                heapq.heappush(due, at + dice.expovariate(plan.rate))
        if now > ends + 12:
            break
        for connection in [*connections]:
            if connection.closed:
                continue
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
            if selector.get_key(connection.socket).events != events:
                selector.modify(connection.socket, events, connection)
        wait = max(0.0, due[0] - time.perf_counter()) if due and due[0] < ends else 0.2
        for key, events in selector.select(wait):
            if events & selectors.EVENT_READ:
                key.data.read()
                if key.data.closed:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    continue
            if events & selectors.EVENT_WRITE:
                key.data.write()
        now = time.perf_counter()
        while finished:
            at, status = finished.popleft()
            under_way -= 1
            done.append((at, now - at, status))
            if plan.callers:
                heapq.heappush(due, now)
    counted = [entry for entry in done if counted_from <= entry[0] + (entry[1] if plan.callers else 0.0) < ends]
    cpu_s = time.process_time() - cpu_from
    return {
        "offered_per_s": len([1 for at, _, _ in done if at >= counted_from]) / plan.seconds,
        **summary(counted, plan),
        "answered": sum(status == "0" for _, _, status in done),
        "unanswered": under_way,
        "generator_cpu_share": round(cpu_s / plan.seconds, 3),
        "generator_lag_p99_ms": quantile(lags, 0.99),
    }


def summary(counted: Sequence[tuple[float, float, str]], plan: Plan) -> dict:
    """Rates and latencies of the calls that count."""
    good = [latency for _, latency, status in counted if status == "0"]
    refused = [latency for _, latency, status in counted if status in ("8", "14", "4")]
    statuses: dict[str, int] = {}
    for _, _, status in counted:
        statuses[status] = statuses.get(status, 0) + 1
    return {
        "answered_per_s": round(len(good) / plan.seconds, 1),
        "good_per_s": round(sum(latency <= plan.deadline_s for latency in good) / plan.seconds, 1),
        "p50_ms": quantile(good, 0.5),
        "p99_ms": quantile(good, 0.99),
        "refused_per_s": round(len(refused) / plan.seconds, 1),
        "refused_p50_ms": quantile(refused, 0.5),
        "statuses": statuses,
    }


def quantile(seconds: Sequence[float], share: float) -> float | None:
    """In milliseconds; None of nothing."""
    if not seconds:
        return None
    return round(sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1e3, 2)


def main(argv: list[str]) -> None:
    words = json.loads(argv[1])
    words["bodies"] = tuple(words["bodies"])
    print(json.dumps(run(Plan(**words))))


if __name__ == "__main__":
    main(sys.argv)
