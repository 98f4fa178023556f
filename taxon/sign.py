"""The command `taxon sign`: a published version gets a signature."""

import argparse
import sys
from pathlib import Path

from taxon import ranges
from taxon.bundle import signing, store
from taxon.bundle.manifest import BundleError
from taxon.bundle.signing import KeyFileError
from taxon.mistaken import in_words


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 2 if the version is damaged or the key cannot be used."""
    parser = argparse.ArgumentParser(
        description="Sign a published version, whose files are checked first, for `taxon serve --require-signature`."
    )
    parser.add_argument("name", help="model name")
    parser.add_argument("version", type=ranges.version)
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--sign-key", type=Path, required=True, help="PEM file with an Ed25519 private key")
    options = parser.parse_args(argv)
    try:
        sign = signing.signer(options.sign_key)
        signing.write(store.read(options.models, options.name, options.version).folder, sign)
    except (KeyFileError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon sign: {in_words(error)}\n")
        return 2
    return 0
