"""Which labels are likely wrong, and which pictures should be labelled next."""

import json

import numpy as np
import pytest

from taxon import cli
from taxon.feedback import review
from taxon.feedback.records import Answer, Entry
from taxon.training.rounds.next_to_label import k_centers, next_to_label
from taxon.training.rounds.suspects import confidently_wrong, out_of_fold, suspects
from taxon.training.runs.folder import Run
from tests.training.rounds.conftest import picture, say


def test_confident_learning_by_hand():
    """Means of the given classes: 0.7 for 0, 0.75 for 1. Only the third picture reaches class 1's although called 0."""
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.7, 0.3], [0.3, 0.7], [0.2, 0.8]])
    given = np.array([0, 0, 0, 0, 1, 1])
    scores[2] = [0.2, 0.8]
    scores[3] = [0.8, 0.2]
    assert confidently_wrong(scores, given).tolist() == [False, False, True, False, False, False]


def test_against_cleanlab_on_noisy_blobs():
    """The reference implementation of the confident joint finds the same pictures, but for those that it leaves out
    because it caps how many; wherever it is installed.
    """
    cleanlab = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    given = np.where(rng.random(300) < 0.1, (truth + 1) % 3, truth)
    seen = (np.eye(3)[truth] * 5 + rng.normal(size=(300, 3))).astype(np.float32)
    scores = out_of_fold(seen, given, 0, 3)
    ours = confidently_wrong(scores, given)
    theirs = cleanlab.find_label_issues(given, scores, filter_by="confident_learning", n_jobs=1)
    assert (ours == theirs).mean() > 0.99
    wrong = given != truth
    assert (ours & wrong).sum() / wrong.sum() > 0.6
    assert (ours & wrong).sum() / ours.sum() > 0.9


def test_nobody_is_asked_about_what_they_have_seen():
    """Labels that are pure chance cannot be told out of fold."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    scores = out_of_fold(rng.normal(size=(200, 50)).astype(np.float32), targets, 100, 2)
    assert scores.shape == (100, 2)
    assert scores.sum(axis=1) == pytest.approx(1.0)
    assert (scores.argmax(axis=1) == targets[100:]).mean() < 0.65


def test_wrong_labels_and_who_gives_them_are_found(store, template, tmp_path, capsys):
    for number in range(24):
        label, level = ("dark", 60) if number % 2 else ("light", 190)
        who = "eve" if number >= 18 else "ann"
        said = {"dark": "light", "light": "dark"}[label] if who == "eve" and number % 6 < 4 else label
        say(store, picture(tmp_path, level, number), said, who=who)
    run = Run.open(template / "runs" / "first")
    found = suspects(store, review.cases(store), run)
    assert found.reliability[store.pseudonyms.of("eve")] < found.reliability[store.pseudonyms.of("ann")]
    wrong = {one.picture for one in found.suspicions if one.suspicion > 0.5}
    assert wrong == {
        case.picture
        for case in review.cases(store)
        if case.voices[0].contributor == store.pseudonyms.of("eve") and case.agreed != (_truth(store, case),)
    }
    assert cli.main(["data", "suspects", "--store", str(store.place), "--run", str(run.folder), "--count", "4"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["picture"] for line in lines} == wrong
    assert {picture for picture, one in store.suspicions().items() if one.suspicion > 0.5} == wrong
    assert cli.main(["data", "suspects", "--store", str(store.place)]) == 2


def _truth(store, case):
    from io import BytesIO

    from PIL import Image

    content = store.pictures.read(case.picture, case.extension)
    return "dark" if np.asarray(Image.open(BytesIO(content))).mean() < 125 else "light"


def capture(store, content, score, familiarity):
    answer = Answer(f"id-{score}", "shades", 1, "fp32", ("dark",), score, False, familiarity)
    store.add([Entry(content, answer, "sample")])
    return content


def test_the_farthest_come_first():
    """From 0: 10 is farthest, then 5 lies farthest from both, then 2 from all."""
    covered = np.array([[0.0]], np.float32)
    candidates = np.array([[2.0], [10.0], [5.0], [9.0]], np.float32)
    assert k_centers(covered, candidates, 3) == [1, 2, 0]
    assert sorted(k_centers(covered, candidates, 9)) == [0, 1, 2, 3]
    assert k_centers(np.empty((0, 1), np.float32), candidates, 1) == [0]


def test_pictures_that_nobody_has_spoken_of_are_ranked(store, template, tmp_path, capsys):
    for number, (score, familiarity) in enumerate([(0.9, 0.2), (0.3, 0.9), (0.6, 0.5)]):
        capture(store, picture(tmp_path, 60 + 65 * number, number), score, familiarity)
    say(store, picture(tmp_path, 60, 77), "dark")

    def scores(by, run=None):
        return [answer.score for _, answer in next_to_label(store, 2, by, run)]

    assert scores("uncertain") == [0.3, 0.6]
    assert scores("unfamiliar") == [0.9, 0.6]
    run = Run.open(template / "runs" / "first")
    assert set(scores("diverse", run)) <= {0.9, 0.3, 0.6}
    assert scores("mixed", run) == scores("diverse", run)
    with pytest.raises(ValueError, match="give the run"):
        scores("diverse")
    words = ["data", "next", "--store", str(store.place), "--by", "uncertain", "--count", "1"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 0.3


@pytest.mark.parametrize(("verb", "said"), [("next", "--feedback-sample"), ("suspects", "waits for a decision")])
def test_that_nothing_waits_is_said(store, template, capsys, verb, said):
    run = template / "runs" / "first"
    assert cli.main(["data", verb, "--store", str(store.place), "--run", str(run)]) == 0
    printed = capsys.readouterr()
    assert (printed.out, said in printed.err) == ("", True)
