import numpy as np
import pytest

from taxon.feedback import agreement
from taxon.feedback.agreement import estimate, krippendorff_alpha
from taxon.feedback.records import Kept
from taxon.feedback.review import Case


def test_krippendorffs_own_example():
    """Nominal data of two to four observers with gaps: Krippendorff, Computing Krippendorff's Alpha-Reliability
    (2011), section C: 0.743.
    """
    rows = """1 2 3 3 2 1 4 1 2 . . .
              1 2 3 3 2 2 4 1 2 5 . 3
              . 3 3 3 2 3 4 2 2 5 1 .
              1 2 3 3 2 4 4 1 2 5 1 ."""
    observers = [row.split() for row in rows.splitlines()]
    units = [[value for value in unit if value != "."] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_no_alpha_where_nothing_is_shared_or_nothing_varies():
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None


def test_who_is_wrong_is_found_by_those_who_agree():
    """Three of four contributors are right nine times out of ten, the fourth three times out of ten."""
    rng = np.random.default_rng(0)
    count, classes, rates = 400, 5, (0.9, 0.9, 0.9, 0.3)
    truth = rng.integers(0, classes, count)
    pictures = np.tile(np.arange(count), len(rates))
    contributors = np.repeat(np.arange(len(rates)), count)
    right = rng.random(len(pictures)) < np.asarray(rates)[contributors]
    labels = np.where(right, truth[pictures], (truth[pictures] + rng.integers(1, classes, len(pictures))) % classes)
    found = estimate(pictures, contributors, labels, np.full((count, classes), 1 / classes))
    assert found.reliability == pytest.approx(rates, abs=0.05)
    assert (found.posterior.argmax(axis=1) == truth).mean() > 0.96


def test_by_hand_one_voice_against_a_classifier():
    """Posterior odds of two labels: the prior's times r / (1 - r) at the estimated r."""
    prior = np.array([[0.2, 0.8]])
    found = estimate(np.array([0]), np.array([0]), np.array([0]), prior)
    r = found.reliability[0]
    spread = 0.99 * prior[0] + 0.005
    odds = spread[0] * r / (spread[1] * (1 - r))
    assert found.posterior[0, 0] == pytest.approx(odds / (1 + odds))
    assert r == pytest.approx((9 + found.posterior[0, 0]) / 11, abs=1e-5)


def voice(who, *labels, answered=("red",), score=0.9, proposed=()):
    consent = "train", "", ""
    return Kept("x", "png", who, labels, proposed, *consent, 0.0, "id", "m", 1, "fp32", answered, score, False, None)


def test_people_are_told_apart():
    cases = [Case(f"p{n}", "png", (voice("ann", "red"), voice("bob", "red"))) for n in range(10)]
    cases += [Case(f"q{n}", "png", (voice("ann", "red"), voice("eve", "blue"))) for n in range(10)]
    cases += [Case("new", "png", (voice("ann", "ruby", proposed=("ruby",)),))]
    people = {person.contributor: person for person in agreement.contributors(cases)}
    assert next(iter(people)) == "eve"
    assert (people["ann"].said, people["ann"].shared, people["ann"].agree) == (21, 20, 0.5)
    assert (people["eve"].agree, people["eve"].agree_with_model) == (0.0, 0.0)
    assert people["eve"].reliability < 0.5 < people["bob"].reliability
    _, suspicions = agreement.judged(cases)
    assert "new" not in {one.picture for one in suspicions}


def test_nothing_said_is_judged_as_nothing():
    assert agreement.judged([]) == ({}, [])
