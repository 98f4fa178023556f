"""What came of a run, as figures. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc

from taxon.bench.load import Outcome

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
OK = 0
REFUSED = {4, 8, 14}  # DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p99_9_ms": 0.999}

Figures = dict[str, Any]


def counted(outcome: Outcome) -> list[tuple[float, int]]:
    """Latency in seconds and status of the calls that count: due in the time that is measured, or, of callers, ended
    in it.
    """
    plan = outcome.plan
    first, last = plan.warmup_s, plan.warmup_s + plan.seconds
    calls = zip(outcome.due_s, outcome.latency_s, outcome.status, strict=True)
    return [
        (latency, status) for due, latency, status in calls if first <= due + (latency if plan.callers else 0.0) < last
    ]


def within(outcome: Outcome, seconds: float) -> float:
    """The share of all calls that count which were answered within so many seconds; what failed was not. 1 of none."""
    calls = counted(outcome)
    good = sum(status == OK and latency <= seconds for latency, status in calls)
    return good / len(calls) if calls else 1.0


def figures(outcome: Outcome) -> Figures:
    """All that is told of a run, JSON's types only; of the time after the warm-up, but for `answered`.

    Returns:
        offered_per_s, answered_per_s (status OK), good_per_s (OK within the deadline), refused_per_s and refused_p50_ms
        (DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE), p50_ms … p99_9_ms and max_ms of what was answered,
        statuses by name, answered (warm-up included), generator_cpu_share (of a core), generator_lag_p99_ms (how late
        it sent).
    """
    plan, calls = outcome.plan, counted(outcome)
    good = sorted(latency for latency, status in calls if status == OK)
    refused = sorted(latency for latency, status in calls if status in REFUSED)
    statuses = Counter(status for _, status in calls)
    return {
        "offered_per_s": round(len(calls) / plan.seconds, 1),
        "answered_per_s": round(len(good) / plan.seconds, 1),
        "good_per_s": round(sum(latency <= plan.deadline_s for latency in good) / plan.seconds, 1),
        **{name: quantile(good, share) for name, share in SHARES.items()},
        "max_ms": quantile(good, 1.0),
        "refused_per_s": round(len(refused) / plan.seconds, 1),
        "refused_p50_ms": quantile(refused, 0.5),
        "statuses": {NAMES.get(code, str(code)): count for code, count in sorted(statuses.items())},
        "answered": sum(status == OK for status in outcome.status),
        "generator_cpu_share": round(outcome.cpu_s / plan.seconds, 3),
        "generator_lag_p99_ms": quantile(sorted(outcome.lag_s), 0.99),
    }


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest of sorted seconds that at least this share does not exceed (nearest rank), in milliseconds; None of
    nothing.
    """
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3, 2)
