"""What browsers send: fields and at most one file, within bounds (the size is `guard`'s)."""

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_FIELDS = 200


async def read(request: Request) -> FormData:
    """The fields.

    Raises:
        HTTPException: They are no form, or too many.
    """
    return await request.form(max_files=1, max_fields=MOST_FIELDS)


def text(form: FormData, field: str) -> str:
    """A field without spaces around it; empty if there is none."""
    value = form.get(field, "")
    return value.strip() if isinstance(value, str) else ""


async def picture(form: FormData, max_bytes: int) -> tuple[bytes, str]:
    """The picture and its file's name.

    Raises:
        HTTPException: There is none, or it is too large.
    """
    file = form.get("picture")
    if not isinstance(file, UploadFile) or not (content := await file.read()):
        raise HTTPException(400, "There is no picture in what was sent: choose one.")
    if len(content) > max_bytes:
        raise HTTPException(413, f"More than {max_bytes:,} bytes may not be sent: take a smaller picture.")
    return content, file.filename or "picture"
