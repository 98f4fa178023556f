"""What browsers send: texts and at most one file, read at once (how large it may be is `guard`'s)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_FIELDS = 200


@dataclass(frozen=True, slots=True)
class Form:
    """One form that was sent."""

    texts: Mapping[str, Sequence[str]]
    """By field, without spaces around them."""
    file: bytes
    """Empty if there is none."""
    file_name: str

    def text(self, field: str) -> str:
        """A field's first text; empty if there is none."""
        return next(iter(self.texts.get(field, ())), "")

    def picture(self, max_bytes: int) -> bytes:
        """The file.

        Raises:
            HTTPException: There is none, or it is too large.
        """
        if not self.file:
            raise HTTPException(400, "There is no picture in what was sent: choose one.")
        if len(self.file) > max_bytes:
            raise HTTPException(413, f"More than {max_bytes:,} bytes may not be sent: take a smaller picture.")
        return self.file


async def read(request: Request) -> Form:
    """The form of a request.

    Raises:
        HTTPException: It is none, or has too many fields, or is too large.
    """
    await request.body()  # as a whole first: what is too large leaves no temporary file open
    texts: dict[str, list[str]] = {}
    content, name = b"", ""
    async with request.form(max_files=1, max_fields=MOST_FIELDS) as given:
        for field, value in given.multi_items():
            if isinstance(value, UploadFile):
                content, name = await value.read(), value.filename or "picture"
            else:
                texts.setdefault(field, []).append(value.strip())
    return Form(texts, content, name)
