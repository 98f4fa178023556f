"""Contributors → pseudonyms: HMAC-SHA256 with a key that lies beside the store's pictures and nowhere else.

Names are few and guessable, so a hash without a key would be a name that takes a list of names to read. Whoever has the
key can still ask whether a certain person is in it, as `taxon feedback forget` must.
"""

import hashlib
import hmac
import secrets

from taxon.blobs import Blobs
from taxon.feedback.errors import StoreError

FILE = "contributors.key"
KEY_BYTES = 32
SHOWN_DIGITS = 32


class Pseudonyms:
    """Those of one store."""

    def __init__(self, blobs: Blobs) -> None:
        """Reads the key, and makes it if there is none. Callers see to it that nobody else does so at once.

        Raises:
            OSError: It can be neither read nor written.
            StoreError: What is there is no key.
        """
        try:
            self._key = blobs.get(FILE)
        except FileNotFoundError:
            self._key = secrets.token_bytes(KEY_BYTES)
            blobs.put({FILE: self._key})
        if len(self._key) != KEY_BYTES:
            raise StoreError(f"{FILE} must have {KEY_BYTES} bytes: without it nobody can be told from others")

    @property
    def digest(self) -> str:
        """Tells this key from others, and nothing of it."""
        return hashlib.sha256(self._key).hexdigest()

    def of(self, contributor: str) -> str:
        """The same for the same name, in this store only."""
        return hmac.new(self._key, contributor.encode(), hashlib.sha256).hexdigest()[:SHOWN_DIGITS]
