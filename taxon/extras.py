"""Which packages are installed, and how to install what is missing. Not by Taxon's name: on PyPI that is somebody
else's package.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def install(extra: str) -> str:
    """The command that brings an extra of `pyproject.toml`, or several with commas between them."""
    return f"pip install -e '.[{extra}]' in Taxon's checkout"
