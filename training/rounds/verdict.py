"""Whether a version that a round made may take the place of the one that is served.

It is refused if it is worse on the pictures that are held out; if a class or a slice is, beyond chance; or if it is
worse beyond chance on what people said lately. Classes that only it has are told, and do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.store import Bundle
from taxon.training.dataset import slices
from taxon.training.exporting.examples import Example
from taxon.training.loop.significance import changed, holm, loss_p_value
from taxon.training.releases import compare
from taxon.training.releases.compare import Comparison
from taxon.training.releases.held_out import HeldOut

CHANCE = 0.05
"""Of refusing, for one class or another, a version that is as good."""


@dataclass(frozen=True, slots=True)
class ClassTest:
    """One class on the held-out pictures."""

    label: str
    count: int
    before: float | None
    """Recall; None: the served version does not have it."""
    after: float
    p_value: float
    """One-sided, of so many pictures lost against gained (McNemar, exact), times the number of classes that are tested
    (Holm).
    """

    @property
    def is_worse(self) -> bool:
        """Beyond chance."""
        return self.p_value < CHANCE


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of the comparison."""

    held_out: Comparison
    """On pictures of the classes that both have."""
    classes: tuple[ClassTest, ...]
    recent: Comparison | None
    """On what people said lately; None: nothing was kept back."""
    reasons: tuple[str, ...]
    """Why it is refused; none: it is not."""


Judged = Sequence[tuple[Example, tuple[str, ...]]]


def judge(
    current: Bundle, candidate: Bundle, held_out: HeldOut, recent: Judged, allowed_loss: float, require_gain: bool
) -> Verdict:
    """Asks both versions about the same pictures.

    Args:
        current: Served.
        candidate: To take its place; has all of its labels.
        held_out: Pictures that neither was trained on.
        recent: What people said lately: pictures with their labels.
        allowed_loss: Share of the held-out pictures that may be lost, and of each slice of them.
        require_gain: Refuses one that is not better beyond chance on the held-out pictures.

    Raises:
        ParityError, PictureError, OSError: A picture cannot be read.
    """
    known = {*current.manifest.labels}
    pairs = [*zip(held_out.files, held_out.labels, strict=True)]
    shared = [pair for pair in pairs if {*pair[1]} <= known]
    new = [pair for pair in pairs if not {*pair[1]} <= known]
    before, after = (_answers(bundle, shared) for bundle in (current, candidate))
    labels = [names for _, names in shared]
    samples = [sample for sample, names in zip(held_out.samples, held_out.labels, strict=True) if {*names} <= known]
    seen = slices.looks(samples, candidate.manifest.pixels)
    parts = slices.slices(samples, candidate.manifest.labels, seen)
    comparison = compare.compare(before, after, labels, parts=parts)
    classes = [*class_tests(before.right, after.right, labels), *_new_classes(candidate, new, known)]
    spoken = [pair for pair in recent if {*pair[1]} <= known]
    lately = None
    if spoken:
        spoken_before, spoken_after = (_answers(bundle, spoken) for bundle in (current, candidate))
        lately = compare.compare(spoken_before, spoken_after, [names for _, names in spoken])
    reasons = []
    if comparison.difference < -allowed_loss - 1e-12:
        reasons.append(f"worse on the held-out pictures: {told(comparison)}")
    elif require_gain and not (comparison.difference > 0 and comparison.p_value < CHANCE):
        reasons.append(f"not better beyond chance on the held-out pictures: {told(comparison)}")
    reasons += [
        f"class {test.label!r} is worse beyond chance: recall {test.before:.2%} to {test.after:.2%} of {test.count} "
        f"pictures, p {test.p_value:.2g}"
        for test in classes
        if test.before is not None and test.is_worse
    ]
    reasons += [
        f"the slice {part.title!r} is worse beyond chance: {part.accuracy_before:.2%} to {part.accuracy_after:.2%} of "
        f"{part.picture_count} pictures ({part.lost} lost, {part.gained} gained, p {part.p_value:.2g} among "
        f"{len(comparison.slices)} slices)"
        for part in comparison.slices
        if part.loses(allowed_loss)
    ]
    if lately is not None and lately.difference < 0 and lately.p_value < CHANCE:
        reasons.append(f"worse beyond chance on what people said lately: {told(lately)}")
    return Verdict(comparison, tuple(classes), lately, tuple(reasons))


def _answers(bundle: Bundle, pairs: Judged) -> compare.Answers:
    return compare.answers(bundle, [example for example, _ in pairs], [names for _, names in pairs])


def _new_classes(candidate: Bundle, pairs: Judged, known: set[str]) -> list[ClassTest]:
    if not pairs:
        return []
    right = _answers(candidate, pairs).right
    tests = []
    for label in sorted({name for _, names in pairs for name in names} - known):
        chosen = np.array([label in names for _, names in pairs])
        tests.append(ClassTest(label, int(chosen.sum()), None, float(right[chosen].mean()), 1.0))
    return tests


def class_tests(
    before: NDArray[np.bool_], after: NDArray[np.bool_], labels: Sequence[tuple[str, ...]]
) -> list[ClassTest]:
    """Each class by itself, the most suspicious first.

    Args:
        before: Whether the served version is right, [N].
        after: The same of the other one.
        labels: The true ones.
    """
    tests = []
    for label in sorted({name for names in labels for name in names}):
        chosen = np.array([label in names for names in labels])
        was, now = before[chosen], after[chosen]
        tests.append(ClassTest(label, len(was), float(was.mean()), float(now.mean()), loss_p_value(*changed(was, now))))
    tests.sort(key=lambda test: (test.p_value, test.label))
    corrected = holm([test.p_value for test in tests])
    return [replace(test, p_value=p_value) for test, p_value in zip(tests, corrected, strict=True)]


def told(comparison: Comparison) -> str:
    """A comparison in half a sentence."""
    low, high = comparison.interval
    return (
        f"{comparison.accuracy_before:.2%} to {comparison.accuracy_after:.2%} of {comparison.picture_count} pictures "
        f"({comparison.difference:+.2%}, 95 % interval {low:+.2%} to {high:+.2%}, p {comparison.p_value:.2g})"
    )
