import dataclasses
import re

import pytest
import torch

from taxon.training.participants.contributions import read
from taxon.training.participants.outliers import Rules, judge
from tests.training.participants.contributors import make_base, moved, saved


@pytest.fixture(scope="module")
def base():
    return make_base()


def verdicts(base, tmp_path, *checkpoints, rules=Rules()):
    return judge([read(saved(one, tmp_path, f"{n}.pt"), base) for n, one in enumerate(checkpoints)], rules)


def moved_and_shifted(base, seed, by):
    one = moved(base, seed)
    state = {key: tensor + by if key.endswith("running_mean") else tensor for key, tensor in one.state.items()}
    return dataclasses.replace(one, state=state)


def test_honest_ones_of_unlike_sizes_pass(base, tmp_path):
    found = verdicts(base, tmp_path, moved(base, 1), moved(base, 2, size=2.0), moved(base, 3, size=0.5))
    assert [verdict.reason for verdict in found] == ["", "", ""]
    assert all(verdict.cosine == pytest.approx(0.58, abs=0.1) for verdict in found)


def test_a_thousand_times_the_norm_is_refused_and_does_not_turn_the_others_away(base, tmp_path):
    """It points against them: were it not left out first, all of them would go against the mean."""
    loud = moved(base, 4, size=-1000.0)
    found = verdicts(base, tmp_path, moved(base, 1), loud, moved(base, 2), moved(base, 3))
    assert [bool(verdict.reason) for verdict in found] == [False, True, False, False]
    times = float(re.search(r"([\d.e+]+) times the others' median", found[1].reason)[1])
    assert times == pytest.approx(1000, rel=0.05)
    assert found[1].cosine is None


def test_an_update_turned_round_is_refused(base, tmp_path):
    found = verdicts(base, tmp_path, moved(base, 1), moved(base, 2), moved(base, 3), moved(base, 4, size=-1.0))
    assert [bool(verdict.reason) for verdict in found] == [False, False, False, True]
    assert "goes against the others': the cosine with their mean direction is -0." in found[3].reason
    allowed = verdicts(base, tmp_path, moved(base, 1), moved(base, 4, size=-1.0), rules=Rules(least_cosine=-1.0))
    assert [verdict.reason for verdict in allowed] == ["", ""]


def test_of_two_opposite_ones_nobody_can_tell_which_is_right(base, tmp_path):
    found = verdicts(base, tmp_path, moved(base, 1), moved(base, 4, size=-1.0))
    assert all("goes against" in verdict.reason for verdict in found)


def test_a_copy_counts_once(base, tmp_path):
    found = verdicts(base, tmp_path, moved(base, 1), moved(base, 2), moved(base, 1, count=9000))
    assert [verdict.reason for verdict in found] == ["", "", f"it is a copy of {tmp_path / '0.pt'}"]


def test_spoilt_statistics_of_batches_are_refused_though_the_weights_are_sound(base, tmp_path):
    shifted = [moved_and_shifted(base, seed, by) for seed, by in ((1, 0.1), (2, 0.2), (3, 50.0))]
    found = verdicts(base, tmp_path, *shifted)
    assert [bool(verdict.reason) for verdict in found] == [False, False, True]
    assert "shift of batch statistics" in found[2].reason


@pytest.mark.parametrize("shifts", [(1e30,), (1e30, 1.1e30), (0.1,)])
def test_where_most_freeze_their_statistics_nobody_shifts_them(base, tmp_path, shifts):
    """However many are in league, fewer than half: their median bounds none of them."""
    frozen = [moved(base, seed) for seed in range(3)]
    found = verdicts(base, tmp_path, *frozen, *(moved_and_shifted(base, 10 + n, by) for n, by in enumerate(shifts)))
    assert [bool(verdict.reason) for verdict in found] == [False] * 3 + [True] * len(shifts)
    assert "shift of batch statistics has the norm" in found[-1].reason
    assert "most of the others have none" in found[-1].reason


def test_where_few_freeze_theirs_all_pass(base, tmp_path):
    found = verdicts(base, tmp_path, moved(base, 0), *(moved_and_shifted(base, 10 + n, 0.1) for n in range(3)))
    assert [verdict.reason for verdict in found] == [""] * 4


def test_one_alone_is_taken(base, tmp_path):
    (found,) = verdicts(base, tmp_path, moved(base, 1))
    assert (found.reason, found.cosine) == ("", None)
    assert found.norm == pytest.approx(float(torch.linalg.vector_norm(found.contribution.update)))
