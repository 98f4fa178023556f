"""The simulation agrees with what is known of queues, and `docs/scaling.md` says what it says."""

import re
import statistics
from pathlib import Path

import pytest

from benchmarks.simulate_replicas import SPREAD, enough, figures, simulate

PAGE = (Path(__file__).parents[2] / "docs/scaling.md").read_text()


@pytest.mark.parametrize("used", [0.5, 0.8])
def test_one_worker_without_batches_waits_as_pollaczek_and_khinchin_say(used):
    """M/G/1: the mean wait is rho (1 + c²) S / 2 (1 - rho), for a time of service S of a coefficient of variation c."""
    seconds, spread = 0.01, 0.5
    wait = used * (1 + spread**2) * seconds / (2 * (1 - used))
    assert statistics.mean(simulate({1: seconds}, 1, used / seconds, spread=spread)) == pytest.approx(
        seconds + wait, rel=0.06
    )


def test_calls_in_turns_wait_less_than_calls_by_chance():
    by_chance, in_turns = (figures({1: 0.01}, 1, 320, 4, turns, 0.0)["p99_ms"] for turns in (False, True))
    assert in_turns < 0.7 * by_chance


def test_the_page_says_what_the_simulation_says():
    command = re.search(r"simulate_replicas --batch-ms ([^\n]*) --rate (\d+) --p99-ms (\d+) --workers (\d+)", PAGE)
    run_s = {int(size): float(ms) / 1e3 for size, ms in re.findall(r"(\d+)=([\d.]+)", command[1])}
    rows = enough(run_s, int(command[4]), float(command[2]), float(command[3]), in_turns=False, spread=SPREAD)
    told = re.findall(
        r"^ +(\d+) replicas +([\d.]+)% +(?:p50 +([\d.]+) ms +p99 +([\d.]+) ms|cannot)", PAGE, re.MULTILINE
    )
    assert [(int(replicas), float(p99 or 0)) for replicas, _, _, p99 in told] == [
        (row["replicas"], row.get("p99_ms", 0)) for row in rows
    ]
