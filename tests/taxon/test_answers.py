import numpy as np
import pytest

from taxon.bundle.answers import joined, parted

SCORES = np.float32([[0.2, 0.8], [0.6, 0.4]])
FAMILIARITY = np.float32([[0.9], [0.1]])


def test_scores_alone_stay_what_they_are():
    assert joined([SCORES]) is SCORES
    scores, familiarity = parted(SCORES, 2)
    np.testing.assert_array_equal(scores, SCORES)
    assert familiarity is None


def test_what_is_joined_can_be_parted():
    rows = joined([SCORES, FAMILIARITY])
    assert rows.tolist() == [
        [*scores, *value] for scores, value in zip(SCORES.tolist(), FAMILIARITY.tolist(), strict=True)
    ]
    scores, familiarity = parted(rows, 2)
    np.testing.assert_array_equal(scores, SCORES)
    np.testing.assert_array_equal(familiarity, FAMILIARITY[:, 0])
    scores, familiarity = parted(rows[1], 2)  # one row alone
    assert (scores.tolist(), float(familiarity)) == (SCORES[1].tolist(), FAMILIARITY[1, 0])


def test_outputs_of_different_batches_are_no_rows():
    with pytest.raises(ValueError, match="dimension"):
        joined([SCORES, FAMILIARITY[:1]])
