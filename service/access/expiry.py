"""When a certificate ends: Python's `ssl` tells so only of certificates that it has verified."""

import base64
import re
from datetime import UTC, datetime

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
VERSION, UTC_TIME = 0xA0, 0x17
"""Tags of ASN.1."""
FIELDS_BEFORE_VALIDITY = 3
"""Serial number, algorithm, issuer (RFC 5280, section 4.1); before them the version, if there is one."""


def expires(chain: bytes) -> datetime:
    """When the first certificate of a chain in PEM ends.

    Raises:
        ValueError: There is none, or it is none.
    """
    found = PEM.search(chain)
    if found is None:
        raise ValueError("no certificate in PEM")
    der = base64.b64decode(found[1])
    try:
        at, _ = _content(der, 0)  # the certificate
        at, _ = _content(der, at)  # what is signed of it
        for _ in range(FIELDS_BEFORE_VALIDITY + (der[at] == VERSION)):
            _, at = _content(der, at)
        begins, _ = _content(der, at)  # the validity: from, to
        _, at = _content(der, begins)
        first, last = _content(der, at)
        form = "%y%m%d%H%M%SZ" if der[at] == UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(der[first:last].decode("ascii"), form).replace(tzinfo=UTC)
    except IndexError:
        raise ValueError("not a certificate") from None


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where what an element holds begins and ends."""
    size, begins = der[at + 1], at + 2
    if size & 0x80:
        begins += size & 0x7F
        size = int.from_bytes(der[at + 2 : begins])
    return begins, begins + size
