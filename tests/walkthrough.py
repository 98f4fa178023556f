"""The commands of a page of the documentation, to be run as they are written."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Each fenced block: its language and what is in it. `console` blocks are for people: they want a network, Docker
    or a cluster.
    """
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def script(page: Path) -> str:
    """A script for bash of all `sh` and `python` blocks, which ends at the first command that fails."""
    parts = ["set -euo pipefail"]
    for language, text in blocks(page):
        if language == "sh":
            parts.append(text)
        elif language == "python":
            parts.append(f"python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON")
    return "\n".join(parts) + "\n"
