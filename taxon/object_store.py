"""Places by their URLs: s3://…, gs://…, file://…, whatever fsspec knows. Needs the extra `objects`.

Every error is an `OSError` that names the place, whichever library stands behind the URL.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taxon.mistaken import first_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def is_url(place: str) -> bool:
    """Whether it names its scheme, as no path does."""
    return re.match(r"[a-z][a-z0-9+.-]+://", place) is not None


def open_place(url: str) -> tuple["AbstractFileSystem", str]:
    """The file system of a URL, and the path in it.

    Raises:
        OSError: A package is missing, nobody knows the scheme, or it cannot be reached; the message says which.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise OSError(errno.ENOPKG, "places by URL need `pip install 'taxon[objects]'`", url) from error
    with told(url):
        # What others have written meanwhile must be seen.
        found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False, skip_instance_cache=False)
    return found


@contextmanager
def told(where: str) -> Iterator[None]:
    """What the library behind a URL says, as `OSError` with the place in it."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "it is not there", where) from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or first_line(error), where) from error
    except Exception as error:  # each library has errors of its own
        raise OSError(errno.EIO, f"{type(error).__name__}: {first_line(error)}", where) from error
