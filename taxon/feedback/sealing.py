"""Encryption at rest, by choice: AES-256-GCM (NIST SP 800-38D) for each picture and note, with a random nonce
before it. Needs the package `cryptography` (extra `signing`).
"""

import secrets
from pathlib import Path

from taxon import extras

KEY_BYTES = 32
NONCE_BYTES = 12


class SealError(Exception):
    """The key is none, or is not the one that it was closed with."""


class Seal:
    """Closes and opens what is kept."""

    def __init__(self, key: Path) -> None:
        """Reads the key.

        Args:
            key: A file of 32 bytes, such as `head -c 32 /dev/urandom` makes. Keep it elsewhere than the store.

        Raises:
            SealError: The file cannot be read or is no key, or `cryptography` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError as error:
            raise SealError(f"{error}; install it with: {extras.install('signing')}") from error
        try:
            content = key.read_bytes()
        except OSError as error:
            raise SealError(f"the key {key} cannot be read: {error.strerror}") from error
        if len(content) != KEY_BYTES:
            raise SealError(f"the key {key} has {len(content)} bytes, it must have {KEY_BYTES}")
        self._cipher = AESGCM(content)

    def closed(self, content: bytes, name: str) -> bytes:
        """Encrypted; opens only under the same name."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, name.encode())

    def opened(self, content: bytes, name: str) -> bytes:
        """What was closed.

        Raises:
            SealError: By another key or name, or changed since.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], name.encode())
        except InvalidTag as error:
            raise SealError("what is kept does not open with this key") from error
