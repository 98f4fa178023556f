"""Lists in pages: how large, and where the next one begins."""

import base64
import binascii

from taxon.service.errors import FieldInvalidError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def page_size(wanted: int) -> int:
    """How many entries a page may have.

    Raises:
        FieldInvalidError: A negative number is wanted.
    """
    if wanted < 0:
        raise FieldInvalidError("page_size", "must not be negative")
    return min(wanted or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def write_token(key: tuple[str, int]) -> str:
    """Says after which version the next page begins."""
    return base64.urlsafe_b64encode(f"{key[0]}/{key[1]}".encode()).decode()


def read_token(token: str) -> tuple[str, int]:
    """The last key of the previous page; a page starts behind it even if that model has gone since.

    Raises:
        FieldInvalidError: It was not written here.
    """
    if not token:
        return "", 0
    try:
        name, version = base64.b64decode(token, altchars=b"-_", validate=True).decode().split("/")
        return name, int(version)
    except (binascii.Error, ValueError):
        raise FieldInvalidError("page_token", "is not a token of this service") from None
