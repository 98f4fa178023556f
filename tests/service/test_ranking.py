import numpy as np
import pytest

from taxon.service.ranking import Ranking

SCORES = np.array([0.1, 0.3, 0.2, 0.3, 0.05, 0.05], np.float32)
SINGLE = Ranking("single_label", None, None, len(SCORES))


def test_best_first_and_of_equals_the_lower_index():
    ranked = SINGLE.rank(SCORES, 0, None)
    assert ranked.indexes == [1, 3, 2, 0, 4]
    assert ranked.scores == pytest.approx([0.3, 0.3, 0.2, 0.1, 0.05])
    assert not ranked.unknown


def test_min_score_is_inclusive_in_float32():
    assert SINGLE.rank(SCORES, 0, 0.3).indexes == [1, 3]


@pytest.mark.parametrize(("threshold", "unknown"), [(0.29, False), (0.31, True), (0.0, False)])
def test_unknown_is_about_the_best_score(threshold, unknown):
    ranked = Ranking("single_label", threshold, None, len(SCORES)).rank(SCORES, 1, 1.0)
    assert (ranked.unknown, ranked.familiarity) == (unknown, None)


@pytest.mark.parametrize(("familiarity", "unknown"), [(0.95, False), (0.9, False), (0.89, True)])
def test_unknown_is_about_the_familiarity_where_it_is_judged(familiarity, unknown):
    ranked = Ranking("single_label", float(np.float32(0.9)), None, len(SCORES)).rank(
        np.append(SCORES, np.float32(familiarity)), 10, None
    )
    assert (ranked.unknown, ranked.familiarity) == (unknown, pytest.approx(familiarity))
    assert ranked.indexes == [1, 3, 2, 0, 4, 5]  # it is no class


def test_multi_label_uses_each_labels_threshold_unless_told_otherwise():
    ranking = Ranking("multi_label", None, (0.05, 0.5, 0.2, 0.1, 0.9, 0.01), len(SCORES))
    assert ranking.rank(SCORES, 10, None).indexes == [3, 2, 0, 5]
    assert ranking.rank(SCORES, 10, 0.2).indexes == [1, 3, 2]
    assert ranking.rank(SCORES, 10, 0.0).indexes == [1, 3, 2, 0, 4, 5]


def test_multi_label_without_measured_thresholds():
    scores = np.array([0.49, 0.5, 0.51], np.float32)
    assert Ranking("multi_label", None, None, 3).rank(scores, 0, None).indexes == [2, 1]


@pytest.mark.parametrize("count", [1, 5, 10, 11, 50, 60])
def test_looking_for_the_best_finds_what_sorting_finds(count):
    scores = np.random.default_rng(count).integers(0, 9, 50).astype(np.float32) / 9  # many are equal
    order = np.argsort(-scores, kind="stable")[:count]
    ranking = Ranking("single_label", None, None, len(scores))
    ranked = ranking.rank(scores, count, None)
    assert ranked.indexes == order.tolist()
    assert ranked.scores == scores[order].tolist()
    assert ranking.rank(scores, count, 0.5).indexes == [index for index in order if scores[index] >= 0.5]
