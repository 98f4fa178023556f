"""Which answered pictures are kept although nobody has said anything of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from taxon.feedback.records import Why
from taxon.service.ranking import Ranked


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator has switched on. Nothing, unless they say so."""

    sample_share: float = 0.0
    below_score: float = 0.0
    unfamiliar: bool = False
    consented: bool = False
    draw: Callable[[], float] = random.random
    """Gives numbers in `[0, 1)`."""

    def why(self, ranked: Ranked, consent: bool | None) -> Why | None:
        """Why a picture is to be kept; None if it is not.

        Args:
            ranked: Its answer.
            consent: What the call says; None: nothing. Who says no is not overruled.
        """
        if consent is False:
            return None
        if self.consented and consent:
            return "consent"
        if self.unfamiliar and ranked.unknown:
            return "unfamiliar"
        if self.below_score and not (ranked.scores and ranked.scores[0] >= self.below_score):
            return "score"
        return "sample" if self.sample_share and self.draw() < self.sample_share else None
