"""What to ask of a model, the same on both sides of the wire. Knows no protobuf."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model shall answer, and how much of its answer is wanted."""

    model_name: str = ""
    """Empty for the only model."""
    model_version: str = ""
    """Empty for the default version; else a decimal number or a label."""
    max_results: int = 0
    """Zero for the server's usual number."""
    min_score: float | None = None
    """The lowest score to return, in [0, 1]; None for all."""
    routing_key: str = ""
    """Calls of the same key go to the same version while a canary is on trial; empty: to either."""
