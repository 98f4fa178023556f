"""Reviewing what people say: which pictures wait for a decision, and what may be decided of them.

The API of whoever reviews, in the terminal, on a page or by rule: `cases`, `decide`, `undo`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from taxon.feedback.decisions import Decision, Suspicion, Verdict
from taxon.feedback.errors import ReviewError
from taxon.feedback.records import Kept
from taxon.feedback.store import Store
from taxon.picture_files import CONTROL, composed, is_utf8

LONGEST = 256
"""Characters of a label, as in a message."""
SEPARATOR = "|"
"""Between several labels of one picture in lists."""


@dataclass(frozen=True, slots=True)
class Case:
    """One picture, what the model answers, what people say, and what was decided."""

    picture: str
    """SHA-256 of its content; `store.pictures.read(case.picture, case.extension)` gives that."""
    extension: str
    voices: tuple[Kept, ...]
    """One for each contributor, the oldest first."""
    decision: Decision | None = None
    suspicion: Suspicion | None = None
    """Of the label that most people give; None: not estimated."""

    @property
    def answer(self) -> Kept:
        """What the model answered, as the newest voice has it: `answered`, `score`, `model`, `version`."""
        return self.voices[-1]

    @property
    def said(self) -> list[tuple[tuple[str, ...], int]]:
        """What people say, with how many say so, most first; `()`: none of the model's classes."""
        counted = Counter(tuple(sorted(voice.labels)) for voice in self.voices)
        return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))

    @property
    def agreed(self) -> tuple[str, ...] | None:
        """What all of them say; None if they differ."""
        return self.said[0][0] if len(self.said) == 1 else None

    @property
    def is_pending(self) -> bool:
        """Whether it waits for a decision: there is none, or somebody has said something else since."""
        decided = self.decision
        return decided is None or any(
            voice.said_at > decided.decided_at and tuple(sorted(voice.labels)) != decided.labels
            for voice in self.voices
        )


def cases(store: Store, *, pending: bool = True, model: str = "") -> list[Case]:
    """Pictures of which people have said something, the most suspicious first, then the oldest.

    Args:
        store: What is kept.
        pending: Only those that wait for a decision.
        model: Only answers of this one; empty: of any.
    """
    voices: dict[str, list[Kept]] = {}
    for kept in store.said():
        if model in ("", kept.model):
            voices.setdefault(kept.picture, []).append(kept)
    decided, suspicions = store.decisions(), store.suspicions()
    found = []
    for picture, said in voices.items():
        case = Case(picture, said[0].extension, tuple(said), decided.get(picture))
        suspicion = suspicions.get(picture)
        if suspicion is not None and (suspicion.label,) == case.said[0][0]:  # of what is said now
            case = replace(case, suspicion=suspicion)
        if case.is_pending or not pending:
            found.append(case)
    return sorted(found, key=lambda case: -case.suspicion.suspicion if case.suspicion else 0.0)


def decide(
    store: Store, case: Case, verdict: Verdict, reviewer: str, labels: Sequence[str] = (), why: str = ""
) -> Decision:
    """Decides of one picture; lasts once this returns. A decision takes the place of the one before, see `undo`.

    Args:
        store: What is kept.
        case: Of `cases`.
        verdict: `accept` what all people say; `correct` it to `labels`, or to none of the classes without any; or
            `reject` the picture.
        reviewer: Who decides.
        labels: With `correct`.
        why: What else there is to say.

    Raises:
        ReviewError: Nothing can be accepted, people differ; or labels that cannot be.
        StoreError: The store cannot be written.
    """
    decision = decided(case, verdict, reviewer, labels, why)
    return decision._replace(decided_at=store.decide([decision]))


def decided(case: Case, verdict: Verdict, reviewer: str, labels: Sequence[str] = (), why: str = "") -> Decision:
    """As `decide`, and writes nothing: for `Store.decide` of many at once.

    Raises:
        ReviewError: See there.
    """
    if not reviewer.strip():
        raise ReviewError("say who decides")
    if verdict != "correct" and labels:
        raise ReviewError(f"to {verdict} takes no labels: correct says what is right")
    right: tuple[str, ...] = ()
    if verdict == "accept":
        if case.agreed is None:
            told = " and ".join(" ".join(one) or "none of these" for one, _ in case.said)
            raise ReviewError(f"{case.picture}: people differ ({told}): say which is right")
        right = case.agreed
    elif verdict == "correct":
        right = tuple(sorted({checked_label(label) for label in labels}))
    elif verdict != "reject":
        raise ReviewError(f"there is no verdict {verdict!r}: accept, correct or reject")
    return Decision(case.picture, verdict, right, reviewer.strip(), why)


def undo(store: Store, reviewer: str, pictures: Sequence[str] = (), decided_by: str = "") -> list[Decision]:
    """Takes decisions back: of these pictures, of one reviewer (`rule`: of the rules), or both. What was decided
    before them counts again.

    Raises:
        ReviewError: Neither is given, or one of the pictures has none.
        StoreError: The store cannot be written.
    """
    if not pictures and not decided_by:
        raise ReviewError("say whose decisions, or of which pictures")
    known = store.decisions()
    if missing := [picture for picture in pictures if picture not in known]:
        raise ReviewError(f"nothing has been decided of {missing[0]}")
    return store.undo(pictures, decided_by, reviewer)


def checked_label(label: str) -> str:
    """The label as lists and folders can hold it, without the spaces around it.

    Raises:
        ReviewError: They cannot.
    """
    found = composed(label.strip())
    if not found or len(found) > LONGEST or CONTROL.search(found) or SEPARATOR in found or not is_utf8(found):
        raise ReviewError(
            f"{label!r} is no label: 1 to {LONGEST} characters without {SEPARATOR} and control characters"
        )
    return found
