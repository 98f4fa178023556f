"""One row of the table: a file, and its answer or why it has none."""

import functools
import json
from collections.abc import Sequence
from typing import NamedTuple

FILE_UNREADABLE = "FILE_UNREADABLE"
NAME_INVALID = "NAME_INVALID"
IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
INFERENCE_FAILED = "INFERENCE_FAILED"


class Row(NamedTuple):
    """What becomes of one file. Columns of the journal, in this order."""

    path: str
    """As it was found, or as it stands in the list."""
    label: str = ""
    """The best one; empty if the model knows none, or if there was an error."""
    score: float | None = None
    """Of the best class, whether or not the model says `unknown`."""
    unknown: bool = False
    familiarity: float | None = None
    labels: str = "[]"
    """The best classes as a JSON array."""
    scores: str = "[]"
    """Theirs."""
    variant: str = ""
    error: str = ""
    """One of the service's reasons, or `FILE_UNREADABLE` or `NAME_INVALID`; empty if there is an answer."""
    message: str = ""
    """What the error says to people."""


def answered(
    path: str,
    labels: Sequence[str],
    scores: Sequence[float],
    *,
    unknown: bool,
    familiarity: float | None,
    variant: str,
) -> Row:
    """The row of a file that has an answer."""
    label = labels[0] if labels and not unknown else ""
    score = scores[0] if scores else None
    texts = ", ".join(map(_quoted, labels)), ", ".join(map(repr, scores))  # a third of what `json.dumps` takes
    return Row(path, label, score, unknown, familiarity, f"[{texts[0]}]", f"[{texts[1]}]", variant)


@functools.lru_cache(4096)
def _quoted(label: str) -> str:
    return json.dumps(label, ensure_ascii=False)


def failed(path: str, error: str, message: str, variant: str = "") -> Row:
    """The row of a file that has none."""
    return Row(path, variant=variant, error=error, message=message)


def unreadable(path: str, error: OSError) -> Row:
    """The row of a file that cannot be read."""
    return failed(path, FILE_UNREADABLE, error.strerror or str(error))
