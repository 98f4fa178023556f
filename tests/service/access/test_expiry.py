"""Against what `cryptography` reads."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from taxon.service.access.expiry import expires
from tests.certificates import Authority


@pytest.mark.parametrize("days", [-1, 1, 90, 825, 365 * 20, 365 * 40, 365 * 900])
def test_the_end_of_a_certificate(tmp_path, days):
    """Of short times and long ones, which are written differently from the year 2050 on."""
    made = Authority(tmp_path).sign("server", lasts=timedelta(days=days))
    pem = made.cert.read_bytes()
    assert expires(pem) == x509.load_pem_x509_certificate(pem).not_valid_after_utc
    other = Authority(tmp_path, "other").cert.read_bytes()
    assert expires(pem + other) == expires(b"# a comment\n" + pem)


def test_certificates_of_authorities_end_too(tmp_path):
    assert timedelta(0) < expires(Authority(tmp_path).cert.read_bytes()) - datetime.now(UTC) <= timedelta(days=1)


def test_what_is_no_certificate(tmp_path):
    whole = x509.load_pem_x509_certificate(Authority(tmp_path).cert.read_bytes()).public_bytes(Encoding.PEM)
    lines = whole.splitlines(keepends=True)
    for content in (b"", b"nothing", b"".join([lines[0], lines[1][:8], b"\n", lines[-1]])):
        with pytest.raises(ValueError, match="certificate"):
            expires(content)
