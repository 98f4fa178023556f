from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from taxon.training.dataset.data import Sample
from taxon.training.releases import compare
from taxon.training.releases.held_out import HeldOut
from taxon.training.rounds.verdict import class_tests, judge
from tests.fakes import COLORS, picture, toy_bundle


def test_classes_are_tested_by_hand():
    """Of class a six are lost and none gained, one-sided 1/64, times two classes; class b is as it was."""
    labels = [("a",)] * 20 + [("b",)] * 20
    before = np.ones(40, dtype=bool)
    after = before.copy()
    after[:6] = False
    after[20] = False
    first, second = class_tests(before, after, labels)
    assert (first.label, first.before, first.after, first.count) == ("a", 1.0, 0.7, 20)
    assert first.p_value == pytest.approx(2 / 64)
    assert first.is_worse
    assert second.p_value == pytest.approx(0.5)
    assert not second.is_worse


def test_many_classes_make_a_loss_by_chance_more_likely():
    labels = [(f"class {number}",) for number in range(10) for _ in range(20)]
    before = np.ones(200, dtype=bool)
    after = before.copy()
    after[:6] = False
    first = class_tests(before, after, labels)[0]
    assert first.p_value == pytest.approx(10 * binomtest(6, 6, alternative="greater").pvalue)
    assert not first.is_worse


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Judges by which of 80 pictures either version is right on. The first 40 are from the source `night`, the others
    from `day`; each has 20 of two classes.
    """
    content = picture(COLORS["red"], size=(9, 9))
    samples = []
    for number in range(80):
        file = tmp_path / f"{number}.png"
        file.write_bytes(content)
        samples.append(Sample(file, label=number % 2, group="night" if number < 40 else "day"))
    labels = tuple(("red", "green")[sample.label] for sample in samples)
    held_out = HeldOut(tuple(sample.path for sample in samples), tuple((label,) for label in labels), tuple(samples))
    served = toy_bundle(tmp_path / "models")
    candidate = toy_bundle(tmp_path / "models")

    def judged(before, after, files=held_out, allowed_loss=0.0):
        right = {served.folder: before, candidate.folder: after}

        def answers(bundle, paths, _):
            return compare.Answers(right[bundle.folder][[int(path.stem) for path in paths]], 0.0, bundle.folder)

        monkeypatch.setattr(compare, "answers", answers)
        return judge(served, candidate, files, [], allowed_loss, require_gain=False)

    return judged, held_out


def test_a_version_that_is_better_but_loses_on_a_slice_is_refused_by_its_name(asked):
    """Of the night 8 are lost of 40, four of each class, and of the day 40 are gained: 1/2^8, times 2 slices."""
    judged, _ = asked
    before, after = np.arange(80) < 40, np.arange(80) >= 8
    verdict = judged(before, after)
    assert verdict.held_out.difference == pytest.approx(0.4)
    (reason,) = verdict.reasons
    assert reason == (
        "the slice 'source night' is worse beyond chance: 100.00% to 80.00% of 40 pictures (8 lost, 0 gained, "
        "p 0.0078 among 2 slices)"
    )
    assert not judged(before, after, allowed_loss=0.2).reasons
    assert not judged(before, np.arange(80) >= 4).reasons


def test_slices_are_of_the_pictures_whose_classes_both_know(asked):
    """The first ten pictures are of a class that only the candidate has."""
    judged, held_out = asked
    names = tuple(("violet",) if number < 10 else label for number, label in enumerate(held_out.labels))
    before, after = np.arange(80) < 40, np.arange(80) >= 18
    verdict = judged(before, after, replace(held_out, labels=names))
    assert [(part.title, part.picture_count, part.lost) for part in verdict.held_out.slices] == [
        ("source night", 30, 8),
        ("source day", 40, 0),
    ]
