"""Numbers on command lines, each with its range: argparse's `type` for them. Whatever is outside is refused before any
work begins.
"""

import argparse
import math
from collections.abc import Callable

MOST_SECONDS = 86400.0
"""A day: longer waits are slips, and more than a year overflows the clocks below."""


def whole(low: int, high: int) -> Callable[[str], int]:
    """Whole numbers from `low` to `high`, both included."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """Finite numbers from `low` to `high`, both included; with `above`, without `low` itself."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high) or math.isinf(value) or (above and value == low):
            reach = f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {reach}")
        return value

    return read


share = number(0.0, 1.0)
"""Of a whole: 0 to 1."""
seconds = number(0.0, MOST_SECONDS, above=True)
"""To wait for something."""
version = whole(1, 10**18 - 1)
"""Of a model."""
finite = number(-1e30, 1e30)
deviation = number(0.0, 1e30, above=True)
