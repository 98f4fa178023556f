import numpy as np
import pytest

from taxon.explanation.faithfulness import margin, measured, random_map

PICTURE = np.zeros((32, 32, 3), np.uint8)
PICTURE[4:12, 4:12] = 255


def score(batch):
    """How bright the corner is."""
    return batch[:, 4:12, 4:12].mean(axis=(1, 2, 3)).astype(np.float32) / 255


def test_a_true_map_beats_a_random_one_and_a_false_one_is_beaten():
    true, false = np.zeros((32, 32), np.float32), np.ones((32, 32), np.float32)
    true[4:12, 4:12], false[4:12, 4:12] = 1, 0
    right, wrong = measured(PICTURE, true, score), measured(PICTURE, false, score)
    chance = measured(PICTURE, random_map(0, (8, 8)), score)
    assert right.deletion < chance.deletion < wrong.deletion
    assert right.insertion > chance.insertion > wrong.insertion
    # The corner is a sixteenth of the picture: a step of sixteen, the mean colour remains.
    assert right.deletion == pytest.approx(0.5 / 16 + (15.5 / 16) * 16 / 255, abs=0.01)


def test_a_margin_is_of_pairs():
    gain, error = margin([0.5, 0.7, 0.9], [0.4, 0.5, 0.9])
    assert gain == pytest.approx(0.1)
    assert error == pytest.approx(1.96 * 0.1 / np.sqrt(3))
