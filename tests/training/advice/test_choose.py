from types import SimpleNamespace

import numpy as np
import pytest

from taxon.training.advice.choose import Judged, pareto, recommend
from taxon.training.advice.cost import Cost
from taxon.training.advice.probe import Probed


def judged(name, wrong, latency_ms, kind="published", slowest_ms=None, count=1000):
    """Wrong on the first pictures, so that of two the better is right wherever the worse is."""
    right = np.arange(count) >= wrong
    cost = Cost("CPUExecutionProvider", "fp32", {1: latency_ms}, {1: slowest_ms or latency_ms}, 10.0, 5.0)
    return Judged(SimpleNamespace(name=name, weights="published", kind=kind), Probed(right), cost)


FLOOR = judged("random", 500, 1.0, "random")


def test_the_most_accurate_within_the_latency_is_recommended():
    found = recommend([judged("small", 200, 2.0), judged("middle", 100, 8.0), judged("large", 50, 30.0), FLOOR], 10.0)
    assert found.chosen.backbone.name == "middle"
    assert any("large would add 5.0% at 30.0 ms" in reason for reason in found.reasons)


def test_of_those_that_may_be_as_good_the_fastest_is():
    found = recommend([judged("fast", 102, 2.0), judged("slow", 100, 8.0)], None)
    assert found.chosen.backbone.name == "fast"
    assert "slow is 0.20% more accurate here, which may be chance" in found.reasons[1]


def test_half_a_point_that_is_no_chance_is_not_given_up():
    assert recommend([judged("fast", 105, 2.0), judged("slow", 100, 8.0)], None).chosen.backbone.name == "slow"


def test_nothing_within_the_latency_says_what_is_fastest():
    found = recommend([judged("small", 200, 20.0), judged("large", 50, 30.0)], 10.0)
    assert found.chosen is None
    assert "small, takes 20.0 ms" in found.reasons[0]


def test_random_weights_are_never_recommended():
    assert recommend([FLOOR], None).chosen is None
    found = recommend([judged("useless", 498, 2.0), FLOOR], None)
    assert "not clearly better than random weights" in found.reasons[-1]


def test_a_busy_machine_is_admitted():
    found = recommend([judged("small", 200, 9.0, slowest_ms=14.0)], 10.0)
    assert "In the slowest round of timing it took 14.0 ms" in found.reasons[1]


def test_what_is_slower_and_worse_is_not_on_the_front():
    front = pareto([judged("a", 100, 8.0), judged("b", 150, 9.0), judged("c", 200, 2.0)])
    assert [one.backbone.name for one in front] == ["c", "a"]


@pytest.mark.parametrize("latency_ms", [8.0, None])
def test_a_latency_that_is_just_met_is_met(latency_ms):
    assert recommend([judged("one", 100, 8.0)], latency_ms).chosen is not None
