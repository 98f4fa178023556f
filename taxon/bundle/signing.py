"""Signatures of bundles: Ed25519 over the bytes of `manifest.json`, which hold the sha256 of every other file.

Optional: `cryptography` is imported only where a key is read. `openssl` makes the keys and can check a signature; see
docs/bundle_format.md.
"""

import re
from collections.abc import Callable
from pathlib import Path

from taxon import extras
from taxon.bundle import atomic_files
from taxon.bundle.manifest import BundleError

SIGNATURE = "manifest.sig"
PEM_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)

Sign = Callable[[bytes], bytes]
"""The bytes of a manifest → those of its signature."""
Check = Callable[[bytes, Path], None]
"""Told the bytes of a manifest and its folder; raises `BundleError` unless the folder holds a signature of them."""


class KeyFileError(Exception):
    """A key that cannot be used. The message says why and what to do."""


def signer(file: Path) -> Sign:
    """Signs with a private key.

    Args:
        file: PEM, not encrypted.

    Raises:
        KeyFileError: Not an Ed25519 private key, or `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    try:
        key = load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise KeyFileError(f"{file} is not a private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{file} is not an Ed25519 key: make one with `openssl genpkey -algorithm ed25519`")
    return key.sign


def checker(file: Path) -> Check:
    """Checks with public keys.

    Args:
        file: PEM; of several keys in it any will do, so that a new one can take over from an old one.

    Raises:
        KeyFileError: Not Ed25519 public keys, or `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    keys = []
    for block in PEM_BLOCK.findall(_read(file)):
        try:
            key = load_pem_public_key(block)
        except ValueError as error:
            raise KeyFileError(f"{file} is not a public key in PEM: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{file} holds a key that is not Ed25519")
        keys.append(key)
    if not keys:
        raise KeyFileError(f"{file} holds no public key in PEM")

    def check(manifest: bytes, folder: Path) -> None:
        try:
            signature = (folder / SIGNATURE).read_bytes()
        except FileNotFoundError as error:
            raise BundleError("it is not signed, and a signature is required") from error
        except OSError as error:
            raise BundleError(f"{SIGNATURE} cannot be read: {error.strerror}") from error
        for key in keys:
            try:
                key.verify(signature, manifest)
            except InvalidSignature:
                continue
            return
        raise BundleError(
            f"{SIGNATURE} is not by a required key: the manifest was changed, or another key has signed it"
        )

    return check


def write(folder: Path, sign: Sign) -> None:
    """Signs the manifest in a folder; a previous signature is replaced as a whole.

    Raises:
        OSError: The manifest cannot be read, or the folder not written.
    """
    atomic_files.write(folder / SIGNATURE, sign((folder / "manifest.json").read_bytes()))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{file} cannot be read: {error.strerror}") from error


def _not_installed(error: ModuleNotFoundError) -> KeyFileError:
    return KeyFileError(f"{error}; install it with: {extras.install('signing')}")
