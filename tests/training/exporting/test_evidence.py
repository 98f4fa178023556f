"""A budget is a promise about pictures that nobody has seen: how many graphs that break it would be published?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom

from taxon.training.exporting import evidence
from taxon.training.exporting.evidence import Budget, fault, loss_bound, pictures_needed, seen, sentence


def published_share(count, budget, gained_share, loss):
    """How often a graph is published that truly loses `loss` and gains `gained_share`: a sum over all outcomes."""
    lost_share = gained_share + loss
    total = 0.0
    for gained in range(count + 1):
        weight = binom.pmf(gained, count, gained_share)
        if weight < 1e-9:
            continue
        most = most_lost(count, budget, gained)
        if most >= 0:
            total += weight * binom.cdf(most, count - gained, lost_share / (1 - gained_share))
    return total


def most_lost(count, budget, gained):
    """The most pictures that may be lost; -1 if none."""
    low, high = -1, count - gained
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if loss_bound(middle, gained, count) <= budget else (low, middle - 1)
    return low


@pytest.mark.parametrize(("count", "budget"), [(299, 0.01), (500, 0.01), (150, 0.02), (220, 0.05)])
def test_at_most_one_in_twenty_graphs_that_lose_more_than_the_budget_is_published(count, budget):
    shares = [published_share(count, budget, gained, budget) for gained in (0.0, 0.002, 0.01, 0.04)]
    assert max(shares) <= 0.052
    assert max(shares) >= 0.02  # and it is no stricter than that


def test_a_graph_that_loses_nothing_is_published_given_enough_pictures():
    assert published_share(1000, 0.01, 0.002, 0.0) > 0.98
    assert published_share(300, 0.01, 0.005, 0.0) < 0.5


def test_without_a_loss_the_bound_is_exact():
    """Of a graph that loses 1 %, 299 pictures show nothing in 5 of 100 cases."""
    assert 0.99**299 <= 0.05 < 0.99**298
    assert loss_bound(0, 0, 299) <= 0.01 < loss_bound(0, 0, 298)
    assert evidence.fewest_pictures(0.01) == 299


@pytest.mark.parametrize(
    ("lost", "gained", "count", "bound"),
    [
        (20, 20, 5000, 0.00215),
        (0, 5, 300, 0.00994),
        (300, 0, 300, 1.0),
        (0, 0, 1, 0.95),
    ],
)
def test_bounds(lost, gained, count, bound):
    assert loss_bound(lost, gained, count) == pytest.approx(bound, abs=1e-5)


@given(st.data())
def test_bounds_are_ordered(data):
    count = data.draw(st.integers(1, 3000))
    lost = data.draw(st.integers(0, count))
    gained = data.draw(st.integers(0, count - lost))
    bound = loss_bound(lost, gained, count)
    assert (lost - gained) / count <= bound <= 1.0
    if lost + gained < count:
        assert bound <= loss_bound(lost + 1, gained, count) + 1e-9
    assert loss_bound(2 * lost, 2 * gained, 2 * count) <= bound + 1e-9


TRUTH = np.tile(np.eye(2, dtype=bool), (200, 1))
RIGHT = np.where(TRUTH, 0.75, 0.25).astype(np.float32)


def changed(lost=0, gained=0):
    """The scores before and after: of 400 pictures so many become wrong, so many right."""
    before, after = RIGHT.copy(), RIGHT.copy()
    after[:lost] = after[:lost, ::-1]
    before[lost : lost + gained] = before[lost : lost + gained, ::-1]
    return before, after


def found(lost=0, gained=0, budget=Budget()):
    return seen(*changed(lost, gained), TRUTH, "single_label", budget)


def test_what_is_seen_of_a_graph():
    one = found(lost=3, gained=1)
    assert (one.picture_count, one.lost, one.gained, one.agreement) == (400, 3, 1, 0.99)
    assert one.divergence == pytest.approx(0.01 * 0.5 * np.log(3), rel=1e-5)
    assert sentence(one) == (
        "it loses 0.50% of 400 pictures (3 lost, 1 gained), with 95% confidence at most 1.64%, and answers 99.00% as "
        "fp32 does (divergence 0.0055 nats)"
    )


def test_what_gains_is_said_to_gain():
    assert sentence(found(lost=1, gained=3)).startswith("it gains 0.50% of 400 pictures (1 lost, 3 gained)")


def test_scores_that_differ_show_before_answers_do():
    _, after = changed()
    one = seen(RIGHT, softmax(np.log(after) * 1.1, axis=1), TRUTH, "single_label", Budget())
    assert one.agreement == 1.0
    assert one.divergence > 1e-4


def test_for_several_labels_each_counts():
    truth = np.ones((400, 3), bool)
    before = np.full((400, 3), 0.75, np.float32)
    after = before.copy()
    after[:2, 1] = 0.25
    one = seen(before, after, truth, "multi_label", Budget())
    assert (one.lost, one.agreement) == (2, 0.995)
    assert one.divergence == pytest.approx(0.005 * 0.5 * np.log(3), rel=1e-5)


def test_a_zero_among_the_scores_is_no_infinity():
    certain = TRUTH.astype(np.float32)
    assert np.isfinite(seen(RIGHT, certain, TRUTH, "single_label", Budget()).divergence)


def test_what_keeps_its_budget_has_no_fault():
    assert fault(found()) == ""
    assert fault(found(lost=3, budget=Budget(judged_by="estimate"))) == ""
    assert fault(found(lost=3, budget=Budget(0.03))) == ""


def test_a_loss_above_the_budget_is_a_fault_however_it_is_judged():
    for judged_by in ("bound", "estimate"):
        assert fault(found(lost=5, budget=Budget(judged_by=judged_by))).endswith("; a loss of 1.00% is allowed")


def test_too_few_pictures_are_told_how_many_would_do():
    message = fault(found(lost=2))
    assert "400 validation pictures do not show it: about 1,200 such pictures would, or --judge-by estimate" in message
    assert pictures_needed(found(lost=2)) == pytest.approx(1150, abs=50)


def test_the_number_of_pictures_that_would_do_is_the_smallest():
    one = found(lost=3, gained=1)
    count = pictures_needed(one)
    lost, gained = one.lost / one.picture_count, one.gained / one.picture_count
    assert loss_bound(lost * count, gained * count, count) <= one.budget
    assert loss_bound(lost * (count - 1), gained * (count - 1), count - 1) > one.budget
    assert pictures_needed(found(lost=4)) is None
    assert pictures_needed(found(lost=4, budget=Budget(0.0100001))) is None  # a bound falls short even of 10,000,000
    assert pictures_needed(found(budget=Budget(0.05))) == evidence.fewest_pictures(0.05) == 59
