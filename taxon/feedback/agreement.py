"""Whether contributors agree, how far each may be relied on, and how likely each label is to be wrong.

Knows arrays and cases; nothing of networks: what a classifier thinks comes in as a prior.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxon.feedback.decisions import Suspicion
from taxon.feedback.review import Case

RELIABLE, WEIGHT = 0.9, 10.0
"""What is thought of a contributor before they have said anything, and how many labels that counts for."""
DOUBT = 0.01
"""Share of every prior that is spread over all labels: classifiers are surer than they should be."""
ROUNDS, SETTLED = 100, 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is true, and who says so."""

    posterior: NDArray[np.float64]
    """[N, K]: how likely each label is, given the prior and all that was said."""
    reliability: NDArray[np.float64]
    """[C]: how often each contributor is right."""


def estimate(
    pictures: NDArray[np.int64],
    contributors: NDArray[np.int64],
    labels: NDArray[np.int64],
    prior: NDArray[np.float64],
) -> Estimate:
    """Expectation and maximisation in turn (Dawid and Skene, 1979, with one number for each contributor; with a
    classifier's scores as the prior, Raykar et al., "Learning from crowds", JMLR 2010).

    Args:
        pictures: [V], of each thing said, 0 to N - 1.
        contributors: [V], 0 to C - 1.
        labels: [V], 0 to K - 1.
        prior: [N, K], rows that add up to 1: what is thought before anybody speaks.
    """
    count, others = prior.shape[1], max(1, prior.shape[1] - 1)
    speakers = int(contributors.max(initial=-1)) + 1
    spoken = np.bincount(contributors, minlength=speakers)
    start = np.log((1.0 - DOUBT) * prior + DOUBT / count)
    reliability = np.full(speakers, RELIABLE)
    posterior = prior
    for _ in range(ROUNDS):
        right, wrong = np.log(reliability), np.log((1.0 - reliability) / others)
        logits = start.copy()
        np.add.at(logits, (pictures, labels), (right - wrong)[contributors])
        posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        hits = np.bincount(contributors, weights=posterior[pictures, labels], minlength=speakers)
        before, reliability = reliability, (hits + RELIABLE * WEIGHT) / (spoken + WEIGHT)
        if np.abs(before - reliability).max(initial=0.0) < SETTLED:
            break
    return Estimate(posterior, reliability)


def krippendorff_alpha(said: Sequence[Sequence[str]]) -> float | None:
    """Agreement beyond chance on names (Krippendorff, 2004): 1 is perfect, 0 is chance, below is worse.

    Args:
        said: For each picture, what each contributor says.

    Returns:
        None if no picture has two voices, or all say the same of everything.
    """
    shared = [values for values in said if len(values) > 1]
    totals = Counter(value for values in shared for value in values)
    count = totals.total()
    if not shared or len(totals) < 2:
        return None
    differ = sum(
        (len(values) ** 2 - sum(number**2 for number in Counter(values).values())) / (len(values) - 1)
        for values in shared
    )
    by_chance = (count**2 - sum(number**2 for number in totals.values())) / (count - 1)
    return 1.0 - differ / by_chance


@dataclass(frozen=True, slots=True)
class Contributor:
    """One of those who speak."""

    contributor: str
    """Pseudonym."""
    said: int
    """Pictures."""
    shared: int
    """Of them those of which others speak too."""
    agree: float | None
    """With how large a share of the others' words on them; None: there are none."""
    agree_with_model: float | None
    """On how large a share of pictures; None: the model answered nothing."""
    accepted: int
    """Pictures of which it was decided that this contributor is right."""
    refused: int
    """Of which it was decided otherwise."""
    reliability: float | None
    """How often right, as estimated from all of that; None: too little is known."""


Scores = Mapping[str, Mapping[str, float]]
"""Of pictures, what a classifier that was not trained on them thinks of each label; adds up to 1."""


def judged(found: Sequence[Case], scores: Scores | None = None) -> tuple[dict[str, float], list[Suspicion]]:
    """How reliable each contributor is, and how likely each label is to be wrong. Only pictures with one label count.

    Args:
        found: With what people say.
        scores: Pictures without any are left out. By default the answers that are kept beside what was said, of
            pictures whose labels their model has.

    Returns:
        Reliability by pseudonym, and suspicions of the label that most people give.
    """
    single = [case for case in found if all(len(voice.labels) == 1 for voice in case.voices)]
    if scores is None:
        scores = _answered(single)
    chosen = [case for case in single if case.picture in scores]
    names = sorted(
        {voice.labels[0] for case in chosen for voice in case.voices}
        | {label for case in chosen for label in scores[case.picture]}
    )
    if len(names) < 2:
        return {}, []
    people = sorted({voice.contributor for case in chosen for voice in case.voices})
    prior = np.asarray([[scores[case.picture].get(name, 0.0) for name in names] for case in chosen])
    of_label = {name: number for number, name in enumerate(names)}
    of_person = {name: number for number, name in enumerate(people)}
    voices = [
        (number, of_person[voice.contributor], of_label[voice.labels[0]])
        for number, case in enumerate(chosen)
        for voice in case.voices
    ]
    of_voices, people_said, labels_said = np.asarray(voices, dtype=np.int64).T
    result = estimate(of_voices, people_said, labels_said, prior)
    suspicions = []
    for case, row in zip(chosen, result.posterior, strict=True):
        (label,), _ = case.said[0]
        suspicions.append(Suspicion(case.picture, label, float(1.0 - row[of_label[label]]), names[int(row.argmax())]))
    return dict(zip(people, map(float, result.reliability), strict=True)), suspicions


def _answered(found: Sequence[Case]) -> dict[str, dict[str, float]]:
    """The best answer with its score, the rest spread over what else anybody names."""
    chosen = [case for case in found if case.answer.answered and not any(voice.proposed for voice in case.voices)]
    names = {voice.labels[0] for case in chosen for voice in case.voices} | {c.answer.answered[0] for c in chosen}
    scores = {}
    for case in chosen:
        best = 0.5 if case.answer.score is None else min(case.answer.score, 1.0)
        rest = (1.0 - best) / max(1, len(names) - 1)
        scores[case.picture] = dict.fromkeys(names, rest) | {case.answer.answered[0]: best}
    return scores


def contributors(found: Sequence[Case]) -> list[Contributor]:
    """Everybody who speaks, the least reliable first."""
    reliability, _ = judged(found)
    told: dict[str, list[tuple[Case, int]]] = {}
    for case in found:
        for number, voice in enumerate(case.voices):
            told.setdefault(voice.contributor, []).append((case, number))
    people = [_contributor(name, theirs, reliability.get(name)) for name, theirs in told.items()]
    return sorted(
        people, key=lambda person: (person.reliability is None, person.reliability or 0.0, person.contributor)
    )


def _contributor(name: str, theirs: Sequence[tuple[Case, int]], reliability: float | None) -> Contributor:
    alike, accepted, refused = [], 0, 0
    with_model = []
    for case, number in theirs:
        voice = case.voices[number]
        mine = tuple(sorted(voice.labels))
        alike += [tuple(sorted(other.labels)) == mine for other in case.voices if other is not voice]
        if voice.answered:
            with_model.append(voice.labels == voice.answered[:1])
        if case.decision is not None:
            is_right = case.decision.verdict != "reject" and case.decision.labels == mine
            accepted, refused = accepted + is_right, refused + (not is_right)
    shared = sum(len(case.voices) > 1 for case, _ in theirs)
    return Contributor(
        name,
        len(theirs),
        shared,
        sum(alike) / len(alike) if alike else None,
        sum(with_model) / len(with_model) if with_model else None,
        accepted,
        refused,
        reliability,
    )
