"""The nearest known word to a mistyped one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or nothing if no known word is near; to be put behind a message."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {matches[0]!r}?" if matches else ""
