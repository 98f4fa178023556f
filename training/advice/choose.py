"""Accuracy and cost of each backbone → the one to take, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

from taxon.training.advice.candidates import Backbone
from taxon.training.advice.cost import Cost
from taxon.training.advice.probe import Probed, difference

AS_GOOD = 0.005
"""Accuracy that may be given up for speed, where it may be chance."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A backbone with all that was measured."""

    backbone: Backbone
    probed: Probed
    cost: Cost

    @property
    def latency_ms(self) -> float:
        """Of one picture."""
        return self.cost.latency_ms[1]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take."""

    chosen: Judged | None
    """None where none may be."""
    reasons: tuple[str, ...]
    """Sentences: why, and how sure."""


def recommend(judged: Sequence[Judged], latency_ms: float | None) -> Recommendation:
    """The most accurate within the latency; of those that may be as good and lose half a point at most, the fastest.

    Args:
        judged: One or more.
        latency_ms: Largest median latency of one picture; None for any.
    """
    floors = [one for one in judged if one.backbone.kind == "random"]
    real = [one for one in judged if one.backbone.kind != "random"]
    fitting = [one for one in real if latency_ms is None or one.latency_ms <= latency_ms]
    if not real:
        return Recommendation(None, ("Only random weights were at hand: name backbones, weights files or runs.",))
    if not fitting:
        fastest = min(real, key=lambda one: one.latency_ms)
        return Recommendation(
            None,
            (
                f"No candidate answers within {latency_ms:g} ms: the fastest, {fastest.backbone.name}, takes "
                f"{fastest.latency_ms:.1f} ms. Take a smaller network or smaller pictures, or allow more.",
            ),
        )
    best = max(fitting, key=lambda one: one.probed.accuracy)
    alike = [one for one in fitting if _may_be_as_good(one, best)]
    chosen = min(alike, key=lambda one: one.latency_ms)
    low, high = chosen.probed.interval
    budget = "" if latency_ms is None else f", within the {latency_ms:g} ms that were asked for"
    reasons = [
        f"Take {chosen.backbone.name} ({chosen.backbone.weights}): its probe is right on {chosen.probed.accuracy:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}), and one picture takes {chosen.latency_ms:.1f} ms{budget}."
    ]
    slowest = chosen.cost.slowest_ms[1]
    if latency_ms is not None and slowest > latency_ms:
        reasons.append(f"In the slowest round of timing it took {slowest:.1f} ms: time it again on an idle machine.")
    if chosen is not best:
        lost, least, most = difference(best.probed, chosen.probed)
        reasons.append(
            f"{best.backbone.name} is {lost:.2%} more accurate here, which may be chance ({least:+.2%} to "
            f"{most:+.2%}), and takes {best.latency_ms / chosen.latency_ms:.1f} times as long."
        )
    others = [one for one in fitting if one is not chosen and one is not best and _overlaps(best, one)]
    if others:
        names = ", ".join(f"{one.backbone.name} ({one.backbone.weights})" for one in others)
        reasons.append(f"These pictures do not tell it from {names}: fine-tune them too if the last point matters.")
    slower = [one for one in real if one not in fitting and difference(one.probed, chosen.probed)[1] > 0]
    if slower:
        dearer = max(slower, key=lambda one: one.probed.accuracy)
        gain = difference(dearer.probed, chosen.probed)[0]
        reasons.append(f"{dearer.backbone.name} would add {gain:.1%} at {dearer.latency_ms:.1f} ms, over the latency.")
    for floor in floors:
        gain, least, most = difference(chosen.probed, floor.probed)
        if least <= 0:
            reasons.append(
                f"It is not clearly better than random weights ({gain:+.1%}, {least:+.1%} to {most:+.1%}): what it was "
                "trained on does not help here. Train a network from scratch."
            )
            break
    return Recommendation(chosen, tuple(reasons))


def _may_be_as_good(one: Judged, best: Judged) -> bool:
    lost, least, _ = difference(best.probed, one.probed)
    return one is best or (least <= 0 and lost <= AS_GOOD)


def _overlaps(best: Judged, one: Judged) -> bool:
    return difference(best.probed, one.probed)[1] <= 0


def pareto(judged: Sequence[Judged]) -> list[Judged]:
    """Those that no other beats in both accuracy and latency, the fastest first."""
    front: list[Judged] = []
    for one in sorted(judged, key=lambda one: (one.latency_ms, -one.probed.accuracy)):
        if not front or one.probed.accuracy > front[-1].probed.accuracy:
            front.append(one)
    return front
