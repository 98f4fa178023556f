"""How to install what is missing. Not by Taxon's name: on PyPI that is somebody else's package."""


def install(extra: str) -> str:
    """The command that brings an extra of `pyproject.toml`, or several with commas between them."""
    return f"pip install -e '.[{extra}]' in Taxon's checkout"
