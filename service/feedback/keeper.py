"""What one front does about feedback: remembers answers, captures pictures by rule, takes what people say."""

from collections.abc import Awaitable, Callable

from taxon.bundle.manifest import GRAPH_OUTPUT
from taxon.bundle.picture_limits import PictureUndecodableError
from taxon.feedback.errors import StoreError, StoreFullError, TooMuchSaidError
from taxon.feedback.records import Answer as AnswerRecord
from taxon.feedback.records import Entry, Said
from taxon.feedback.unstrippable import UnstrippableError
from taxon.service.errors import (
    AnswerNotFoundError,
    ContributorLimitError,
    FeedbackStoreFullError,
    NotServingError,
)
from taxon.service.feedback.recent import Recent
from taxon.service.feedback.rules import Rules
from taxon.service.feedback.writer import Writer
from taxon.service.pipeline import Answer
from taxon.service.scheduling.picture_size import Encoded

Subject = tuple[Encoded | None, AnswerRecord]
"""A picture and what a model answered; None: it is kept already."""
Recall = Callable[[str], Awaitable[Subject | None]]
"""Asks the other fronts."""


class Keeper:
    """Of one front. Lives on the event loop."""

    def __init__(self, rules: Rules, recent: Recent, writer: Writer, recall: Recall) -> None:
        self._rules = rules
        self._recent = recent
        self._writer = writer
        self._recall = recall

    def answered(self, request_id: str, picture: Encoded, answer: Answer, consent: bool | None) -> None:
        """Takes note of an answered picture. On the way of every call: waits for nothing.

        Args:
            request_id: Names the answer.
            picture: As it was sent.
            answer: What is known of it.
            consent: What the call says of keeping it.
        """
        if consent is False:
            return
        self._recent.remember(request_id, picture, answer)
        if why := self._rules.why(answer.ranked, consent):
            self._writer.capture(Entry(picture, record(request_id, answer), why))

    def recall(self, request_id: str) -> Subject | None:
        """What this front remembers of an answer."""
        found = self._recent.find(request_id)
        return None if found is None else (bytes(found.picture), record(request_id, found.answer))

    async def find(self, request_id: str) -> Subject:
        """An answer that was given here, by another front, or before this server was started.

        Raises:
            AnswerNotFoundError: Nobody knows it.
            QueueFullError, NotServingError: The store cannot be asked.
        """
        if subject := self.recall(request_id) or await self._recall(request_id):
            return subject
        try:
            kept = await self._writer.answer(request_id)
        except StoreError as error:
            raise NotServingError("feedback cannot be kept now") from error
        if kept is None:
            raise AnswerNotFoundError(request_id)
        return None, kept

    async def say(self, subject: Subject, said: Said) -> None:
        """Keeps what somebody says; returns once the disk holds it.

        Raises:
            ServiceError: It is not kept, see `service.errors`.
            PictureUndecodableError: The picture's metadata cannot be left out.
        """
        picture, answer = subject
        try:
            outcome = await self._writer.add(Entry(picture, answer, "feedback", said))
        except (StoreFullError, TooMuchSaidError, UnstrippableError) as error:
            raise _refusal(error) from error
        except StoreError as error:
            raise NotServingError("feedback cannot be kept now") from error
        if outcome is None:
            raise AnswerNotFoundError(answer.request_id)

    async def close(self) -> None:
        """Writes what waits."""
        await self._writer.close()


def record(request_id: str, answer: Answer) -> AnswerRecord:
    """What is kept of an answer."""
    model, ranked = answer.model, answer.ranked
    names = model.description.labels[GRAPH_OUTPUT]
    return AnswerRecord(
        request_id,
        model.name,
        model.version,
        model.description.variant,
        tuple(names[index] for index in ranked.indexes),
        ranked.scores[0] if ranked.scores else None,
        ranked.unknown,
        ranked.familiarity,
    )


def _refusal(error: StoreFullError | TooMuchSaidError | UnstrippableError) -> Exception:
    if isinstance(error, StoreFullError):
        return FeedbackStoreFullError("there is no room for more feedback; nothing of this was kept")
    if isinstance(error, TooMuchSaidError):
        return ContributorLimitError(error.max_count, error.retry_s)
    return PictureUndecodableError(f"{error}: save the picture anew")
