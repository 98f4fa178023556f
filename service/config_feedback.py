"""What is kept of answered pictures and of what people say of them: settings of `taxon serve`, see `config`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class FeedbackSettings(BaseSettings):
    """Nothing is kept unless a place is given; nothing but feedback unless a rule is."""

    feedback: Annotated[
        str | None,
        Field(
            description="Folder in which feedback is kept, with its pictures, by taxon.v1.FeedbackService. No feedback "
            "is taken if not given. Fronts and servers of one machine may share it; those of several share "
            "postgresql://USER@HOST/DATABASE (extra `postgres`), with --feedback-pictures."
        ),
    ] = None
    feedback_pictures: Annotated[
        str | None,
        Field(
            description="With --feedback postgresql://…, where the pictures are kept: s3://BUCKET/PREFIX or another "
            "URL that fsspec knows (extra `objects`), or a folder that all servers mount."
        ),
    ] = None
    feedback_sample: Annotated[
        Share, Field(description="With --feedback, keep this share of all answered pictures, by chance.")
    ] = 0.0
    feedback_below_score: Annotated[
        Share, Field(description="With --feedback, keep answered pictures whose best score is below this.")
    ] = 0.0
    feedback_unfamiliar: Annotated[
        CliImplicitFlag[bool],
        Field(description="With --feedback, keep answered pictures that the model calls unknown."),
    ] = False
    feedback_consented: Annotated[
        CliImplicitFlag[bool],
        Field(description="With --feedback, keep answered pictures whose call says capture_consent."),
    ] = False
    feedback_key: Annotated[
        Path | None,
        Field(
            description="With --feedback, file of 32 random bytes with which pictures and notes are encrypted. Needs "
            "the extra `signing`."
        ),
    ] = None
    feedback_max_bytes: Annotated[
        PositiveInt,
        Field(
            le=2**50,
            description="With --feedback, most bytes of pictures. Those of which nobody has said anything make room, "
            "the oldest first; then feedback is refused.",
        ),
    ] = 10 * 2**30
    feedback_max_days: Annotated[
        float,
        Field(
            gt=0.0,
            le=36500.0,
            description="With --feedback, days that a picture is kept after the last that was said of it.",
        ),
    ] = 90.0
    feedback_max_per_hour: Annotated[
        PositiveInt, Field(le=10**6, description="With --feedback, most that one contributor may say in an hour.")
    ] = 1000
    feedback_recall_seconds: Annotated[
        float,
        Field(
            ge=0.0,
            le=86400.0,
            description="With --feedback, how long an answer may be spoken of by its request_id alone.",
        ),
    ] = 600.0
    feedback_recall_bytes: Annotated[
        PositiveInt,
        Field(
            le=2**40,
            description="With --feedback, memory of one front for pictures that may be spoken of so; the oldest are "
            "forgotten sooner.",
        ),
    ] = 64 * 2**20

    @model_validator(mode="after")
    def _keeps_somewhere(self) -> Self:
        rules = self.feedback_sample, self.feedback_below_score, self.feedback_unfamiliar, self.feedback_consented
        if self.feedback is None and (any(rules) or self.feedback_key or self.feedback_pictures):
            raise ValueError("--feedback-… settings need --feedback FOLDER")
        return self
