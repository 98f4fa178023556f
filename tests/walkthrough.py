"""The commands of a page of the documentation, to be run as they are written."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = tuple(ROOT / "docs" / page for page in re.findall(r"tutorials/\w+\.md", (ROOT / "mkdocs.yml").read_text()))
"""In the order in which the site has them, which is that of a reader."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Each fenced block: its language and what is in it. `console` blocks are for people: they want a network, Docker
    or a cluster.
    """
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def script(page: Path) -> str:
    """A script for bash of all `sh` and `python` blocks, which ends at the first command that fails, and then leaves no
    server behind.
    """
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    for language, text in blocks(page):
        if language == "sh":
            parts.append(text)
        elif language == "python":
            parts.append(f"python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON")
    return "\n".join(parts) + "\n"


def follow(page: Path, folder: Path, **variables: str) -> str:
    """Runs the script of a page in a folder, with the `taxon` of this Python. Returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAXON_")} | variables
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    words = ["bash", "-c", script(page)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{page.name}: {done.stdout}{done.stderr}"
    return done.stdout


def skip_without(*ports: int) -> None:
    """Skips a test where another program listens on a port that a page names."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"something listens on port {port}, which the page uses")
