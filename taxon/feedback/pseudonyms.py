"""Contributors → pseudonyms: HMAC-SHA256 with a key that lies in the store's folder and nowhere else.

Names are few and guessable, so a hash without a key would be a name that takes a list of names to read. Whoever has the
folder can still ask whether a certain person is in it, as `taxon feedback forget` must.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from taxon.bundle import atomic_files

FILE = "contributors.key"
KEY_BYTES = 32
SHOWN_DIGITS = 32


class Pseudonyms:
    """Those of one store."""

    def __init__(self, folder: Path) -> None:
        """Reads the key, and makes it if there is none. Callers see to it that nobody else does so at once.

        Raises:
            OSError: It can be neither read nor written.
            ValueError: The file is no key.
        """
        path = folder / FILE
        if not path.exists():
            atomic_files.write(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
        self._key = path.read_bytes()
        if len(self._key) != KEY_BYTES:
            raise ValueError(f"{path} must have {KEY_BYTES} bytes: without it nobody can be told from others")

    def of(self, contributor: str) -> str:
        """The same for the same name, in this store only."""
        return hmac.new(self._key, contributor.encode(), hashlib.sha256).hexdigest()[:SHOWN_DIGITS]
