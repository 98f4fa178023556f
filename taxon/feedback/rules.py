"""Rules that decide without a person what is plain, and leave the rest to people."""

import argparse
from collections import Counter
from dataclasses import dataclass

from taxon import ranges
from taxon.feedback.decisions import Decision
from taxon.feedback.review import Case, cases, decided
from taxon.feedback.store import Store

REVIEWER = "rule"
"""Who decides, in the log."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules hold. None: everything waits for people."""

    accept_agreed: int = 0
    """Accept what so many contributors or more say, if nobody says anything else; 0: never."""
    accept_confirmed: bool = False
    """Accept what a contributor says if the model's best answer was the same."""
    accept_below: float | None = None
    """Accept labels that are suspected less."""
    reject_from: float | None = None
    """Reject pictures whose label is suspected so much or more. Goes before the others."""

    def decision(self, case: Case) -> Decision | None:
        """What the rules say of a picture; None: nothing."""
        suspicion = case.suspicion
        if suspicion is not None and self.reject_from is not None and suspicion.suspicion >= self.reject_from:
            why = f"suspicion {suspicion.suspicion:.3f}, rather {suspicion.likely}"
            return decided(case, "reject", REVIEWER, why=why)
        if case.agreed is None:
            return None
        if self.accept_agreed and len(case.voices) >= self.accept_agreed:
            return decided(case, "accept", REVIEWER, why=f"{len(case.voices)} agree")
        if self.accept_confirmed and case.agreed == tuple(sorted(case.answer.answered[:1])) != ():
            return decided(case, "accept", REVIEWER, why="the model agrees")
        if suspicion is not None and self.accept_below is not None and suspicion.suspicion < self.accept_below:
            return decided(case, "accept", REVIEWER, why=f"suspicion {suspicion.suspicion:.3f}")
        return None


def apply(store: Store, rules: Rules, model: str = "") -> Counter[str]:
    """Decides of all pending pictures by rule. Returns how many by verdict, and how many are `left` to people.

    Raises:
        StoreError: The store cannot be written; nothing was decided.
    """
    found = [rules.decision(case) for case in cases(store, model=model)]
    made = [decision for decision in found if decision is not None]
    if made:
        store.decide(made)
    counts: Counter[str] = Counter(decision.verdict for decision in made)
    counts["left"] = len(found) - len(made)
    return counts


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Adds the rules that decide without a person, see `rules.Rules`."""
    group = parser.add_argument_group("rules, which decide without a person")
    group.add_argument(
        "--accept-agreed",
        type=ranges.whole(0, 1000),
        default=0,
        metavar="COUNT",
        help="accept what so many contributors or more say, if nobody says anything else",
    )
    group.add_argument(
        "--accept-confirmed", action="store_true", help="accept what a contributor says if the model answered the same"
    )
    group.add_argument(
        "--accept-below", type=ranges.share, metavar="SUSPICION", help="accept labels that are suspected less, 0 to 1"
    )
    group.add_argument(
        "--reject-from",
        type=ranges.share,
        metavar="SUSPICION",
        help="reject pictures whose label is suspected so much or more; goes before the others",
    )


def from_options(options: argparse.Namespace) -> Rules:
    """What `add_rules` asked for."""
    return Rules(options.accept_agreed, options.accept_confirmed, options.accept_below, options.reject_from)
