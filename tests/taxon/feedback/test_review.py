"""Deciding of what people say: by people, by rule, and taken back."""

import io
import json
import sqlite3

import pytest
from rich.console import Console

from taxon import cli
from taxon.feedback import decisions, review, rules, sqlite_index
from taxon.feedback.decisions import Suspicion
from taxon.feedback.errors import ReviewError, StoreError
from taxon.feedback.opening import Shared
from taxon.feedback.reviewing import review as in_terminal
from taxon.feedback.store import Store
from tests.fakes import FakeClock
from tests.taxon.feedback.entries import answer, entry


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(place, open_store, clock):
    return open_store(place, clock=clock)


def say(store, number, *labels_by_person):
    store.add([entry(number, who=f"person {n}", labels=said) for n, said in enumerate(labels_by_person)])
    return next(case for case in review.cases(store, pending=False) if case.voices[0].request_id == f"id-{number}")


def case_of(store, picture, pending=False):
    return next((case for case in review.cases(store, pending=pending) if case.picture == picture), None)


def test_a_case_shows_the_models_answer_beside_what_people_say(store):
    case = say(store, 0, ("blue",), ("blue",), ("green",))
    assert case.answer.answered == ("red", "blue")
    assert case.said == [(("blue",), 2), (("green",), 1)]
    assert case.agreed is None
    assert say(store, 1, ("blue",), ("blue",)).agreed == ("blue",)


def test_what_is_decided_waits_no_more_until_somebody_says_something_else(store, clock):
    case = say(store, 0, ("blue",))
    told = review.decide(store, case, "accept", "ann")
    assert review.cases(store) == []
    decided = case_of(store, case.picture).decision
    assert decided == told
    assert (decided.verdict, decided.labels, decided.reviewer, decided.decided_at) == ("accept", ("blue",), "ann", 1000)
    clock.now += 1
    store.add([entry(0, who="late", labels=("blue",))])
    assert review.cases(store) == []
    clock.now += 1
    store.add([entry(0, who="later", labels=("green",))])
    assert [waiting.picture for waiting in review.cases(store)] == [case.picture]


def test_a_decision_is_taken_back_and_the_one_before_counts_again(store):
    case = say(store, 0, ("blue",))
    review.decide(store, case, "accept", "ann")
    review.decide(store, case, "correct", "bob", ["green"])
    (gone,) = review.undo(store, "ann", [case.picture])
    assert (gone.verdict, gone.labels) == ("correct", ("green",))
    assert case_of(store, case.picture).decision.verdict == "accept"
    review.undo(store, "ann", decided_by="ann")
    assert case_of(store, case.picture, pending=True).decision is None
    with pytest.raises(ReviewError, match="nothing has been decided"):
        review.undo(store, "ann", [case.picture])
    with pytest.raises(ReviewError, match="say whose"):
        review.undo(store, "ann")


@pytest.mark.parametrize("label", ["", "  ", "a|b", "a\nb", "x" * 257])
def test_what_cannot_be_decided_says_why(store, label):
    case = say(store, 0, ("blue",), ("green",))
    with pytest.raises(ReviewError, match="people differ"):
        review.decide(store, case, "accept", "ann")
    with pytest.raises(ReviewError, match="is no label"):
        review.decide(store, case, "correct", "ann", [label])
    with pytest.raises(ReviewError, match="who decides"):
        review.decide(store, case, "reject", " ")
    with pytest.raises(ReviewError, match="takes no labels"):
        review.decide(store, case, "reject", "ann", ["red"])
    assert store.decisions() == {}


def test_the_most_suspicious_come_first_and_suspicion_is_of_what_is_said_now(store):
    first, second = say(store, 0, ("blue",)), say(store, 1, ("blue",))
    store.suspect([Suspicion(first.picture, "blue", 0.2, "blue"), Suspicion(second.picture, "blue", 0.9, "red")])
    assert [case.picture for case in review.cases(store)] == [second.picture, first.picture]
    say(store, 1, ("red",))
    assert case_of(store, second.picture).suspicion is None


def test_rules_decide_what_is_plain(store):
    agreed, alone = say(store, 0, ("blue",), ("blue",)), say(store, 1, ("blue",))
    confirmed, wrong = say(store, 2, ("red",)), say(store, 3, ("blue",), ("blue",))
    differ = say(store, 4, ("blue",), ("red",))
    store.suspect([Suspicion(wrong.picture, "blue", 0.99, "red"), Suspicion(alone.picture, "blue", 0.4, "blue")])
    chosen = rules.Rules(accept_agreed=2, accept_confirmed=True, accept_below=0.1, reject_from=0.9)
    assert rules.apply(store, chosen) == {"accept": 2, "reject": 1, "left": 2}
    made = store.decisions()
    assert {made[case.picture].verdict for case in (agreed, confirmed)} == {"accept"}
    assert (made[wrong.picture].verdict, made[wrong.picture].reviewer) == ("reject", "rule")
    assert {case.picture for case in review.cases(store)} == {alone.picture, differ.picture}
    assert rules.apply(store, chosen) == {"left": 2}


def test_a_person_reviews_in_the_terminal(store):
    cases = [say(store, number, ("blue",)) for number in range(5)]
    lines = iter(["a", "what?", "c green", "u", "c red", "s", "c", "r"])
    shown = io.StringIO()
    console = Console(file=shown, width=100, force_terminal=True)
    assert in_terminal(store, cases, "ann", console, lambda: next(lines)) == 4
    made = [store.decisions().get(case.picture) for case in cases]
    found = [decision and (decision.verdict, decision.labels) for decision in made]
    assert found == [("accept", ("blue",)), ("correct", ("red",)), None, ("correct", ()), ("reject", ())]
    text = shown.getvalue()
    assert "▀" in text
    assert "red (0.90), colors version 1" in text


def test_an_ended_input_ends_the_review(store):
    def ask():
        raise EOFError

    assert in_terminal(store, [say(store, 0, ("blue",))], "ann", Console(file=io.StringIO()), ask) == 0


def test_who_leaves_takes_what_was_accepted_of_them(store):
    """What a reviewer said on their own account stays, and so does what somebody else says too."""
    alone, shared = say(store, 0, ("blue",)), say(store, 1, ("blue",), ("blue",))
    contested = say(store, 2, ("blue",), ("blue",))
    corrected = say(store, 3, ("blue",), ("red",))
    for case in (alone, shared, contested):
        review.decide(store, case, "accept", "ann")
    review.decide(store, corrected, "correct", "ann", ["green"])
    store.suspect([Suspicion(shared.picture, "blue", 0.2, "blue")])
    say(store, 2, ("blue",), ("red",))
    store.forget(store.pseudonyms.of("person 0"))
    assert store.decisions().keys() == {shared.picture, corrected.picture}
    assert store.suspicions() == {}


def test_a_store_of_before_reviews_is_opened_and_a_newer_one_is_not(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    old = sqlite3.connect(folder / sqlite_index.FILE)
    old.executescript(sqlite_index.SCHEMAS[0] + "PRAGMA user_version = 1")
    old.close()
    Store(folder).close()
    store = Store(folder)
    assert store.decisions() == {}
    store.close()
    newer = sqlite3.connect(folder / sqlite_index.FILE)
    newer.execute("PRAGMA user_version = 4")
    newer.close()
    with pytest.raises(StoreError, match="newer Taxon"):
        Store(folder)


def test_decisions_outlast_the_store(store, place, open_store):
    case = say(store, 0, ("blue",))
    review.decide(store, case, "accept", "ann", why="plain")
    again = open_store(place)
    assert again.decisions()[case.picture] == decisions.Decision(
        case.picture, "accept", ("blue",), "ann", "plain", 1000
    )


@pytest.fixture
def run(store, place, capsys):
    def called(verb, *words, status=0):
        capsys.readouterr()
        where = [place.database, "--pictures", place.pictures] if isinstance(place, Shared) else [str(place)]
        assert cli.main(["feedback", verb, *map(str, words), "--store", *where]) == status
        told = capsys.readouterr()
        return told.err if status else [json.loads(line) for line in told.out.splitlines()]

    return called


def test_the_commands_list_decide_and_undo(store, run):
    case = say(store, 0, ("blue",), ("green",))
    assert run("review", "--list")[0]["said"] == [
        {"labels": ["blue"], "count": 1},
        {"labels": ["green"], "count": 1},
    ]
    (made,) = run("decide", case.picture[:10], "--label", "green", "--reviewer", "ann", "--why", "seen")
    assert (made["verdict"], made["labels"], made["reviewer"], made["why"]) == ("correct", ["green"], "ann", "seen")
    assert run("review", "--list") == []
    assert run("undo", "--decided-by", "ann")[0]["picture"] == case.picture
    assert run("review", "--accept-agreed", 2) == [{"left": 1}]
    assert "0 pictures" in run("decide", "xyz", "--accept", status=2)
    assert "people differ" in run("decide", case.picture, "--accept", status=2)


def test_suspicions_from_the_answers_that_are_kept(store, run):
    """Twenty labels of a contributor who agrees with the model, and two where a sure model says otherwise."""
    for number in range(20):
        say(store, number, ("red",))
    wrong = [entry(20 + n, who="joe", labels=("blue",), answer=answer(20 + n)._replace(score=0.999)) for n in range(2)]
    store.add(wrong)
    assert run("review", "--suspect", "--reject-from", 0.9, "--accept-below", 0.1) == [
        {"accept": 20, "reject": 2, "left": 0}
    ]
