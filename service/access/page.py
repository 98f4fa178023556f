"""Who may read the metrics page, and how."""

import ssl
from collections.abc import Callable

from taxon.service.access.callers import Callers, Known
from taxon.service.access.certificates import http_context
from taxon.service.access.entry import Entry
from taxon.service.access.gate import key_in


def readers(entry: Entry) -> tuple[ssl.SSLContext | None, Callable[[str], bool] | None]:
    """How it is encrypted, and whether what an HTTP request says as its `Authorization` opens it; None: not at all, and
    everybody.
    """
    tls = None if entry.certificate is None else http_context(entry.certificate)
    return tls, None if entry.callers is None else _readers(entry.callers)


def _readers(callers: Callers) -> Callable[[str], bool]:
    known = Known(callers.callers)

    def may_read(authorization: str) -> bool:
        key = key_in(authorization)
        caller = None if key is None else known.by_key(key)
        return caller is not None and "metrics" in caller.groups

    return may_read
