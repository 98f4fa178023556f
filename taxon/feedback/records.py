"""What is kept of a picture, of the model's answer and of what people say of it."""

from typing import Literal, NamedTuple

Consent = Literal["train", "share"]
"""To be trained and judged on; to be passed on to others as well."""
Why = Literal["sample", "score", "unfamiliar", "consent", "feedback"]
"""Why a picture is kept: by chance, for its low score, because the model calls it unknown, because the call consented,
because somebody said something of it.
"""


class Answer(NamedTuple):
    """What a model answered."""

    request_id: str
    """Names the answer, unique to it."""
    model: str
    version: int
    variant: str
    labels: tuple[str, ...]
    """Best first; empty if none reached the threshold."""
    score: float | None
    """Of the first label."""
    unknown: bool
    familiarity: float | None


class Said(NamedTuple):
    """What somebody says of a picture."""

    contributor: str
    """By their own name: only its keyed hash is kept."""
    labels: tuple[str, ...]
    """Those that fit; empty: none of the model's classes does."""
    proposed: tuple[str, ...]
    """Those of them that the model does not have."""
    consent: Consent
    license: str
    """As SPDX names it; empty: not said."""
    note: str


class Entry(NamedTuple):
    """A picture for the store."""

    picture: bytes | memoryview | None
    """As it was sent; None: it is kept already, with this answer."""
    answer: Answer
    why: Why
    said: Said | None = None
    """None: nobody has said anything yet."""


class Kept(NamedTuple):
    """One row of what people have said."""

    picture: str
    """SHA-256 of its content without metadata, in hexadecimal digits."""
    extension: str
    contributor: str
    """Pseudonym."""
    labels: tuple[str, ...]
    proposed: tuple[str, ...]
    consent: Consent
    license: str
    note: str
    said_at: float
    """Seconds since 1970."""
    request_id: str
    model: str
    version: int
    variant: str
    answered: tuple[str, ...]
    score: float | None
    unknown: bool
    familiarity: float | None
