import pytest

from taxon.service.feedback.rules import Rules
from taxon.service.ranking import Ranked

SURE, UNSURE, UNKNOWN = Ranked([0], [0.9], False), Ranked([0], [0.4], False), Ranked([0], [0.95], True)
NOTHING = Ranked([], [], False)


@pytest.mark.parametrize("ranked", [SURE, UNSURE, UNKNOWN, NOTHING])
@pytest.mark.parametrize("consent", [None, False, True])
def test_nothing_is_kept_unless_a_rule_says_so(ranked, consent):
    assert Rules(draw=lambda: 0.0).why(ranked, consent) is None


def test_each_rule_keeps_what_it_says():
    rules = Rules(0.1, 0.5, unfamiliar=True, consented=True, draw=lambda: 0.5)
    assert [rules.why(ranked, None) for ranked in (SURE, UNSURE, UNKNOWN, NOTHING)] == [
        None,
        "score",
        "unfamiliar",
        "score",
    ]
    assert rules.why(SURE, True) == "consent"
    assert Rules(0.1, draw=lambda: 0.09).why(SURE, None) == "sample"
    assert Rules(0.1, draw=lambda: 0.1).why(SURE, None) is None


def test_who_says_no_is_not_overruled():
    rules = Rules(1.0, 1.0, unfamiliar=True, consented=True)
    assert {rules.why(ranked, False) for ranked in (SURE, UNSURE, UNKNOWN)} == {None}
