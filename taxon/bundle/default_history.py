"""What the default of a model was: `promotions.jsonl` beside the versions records every change of it, and why.

A change is recorded before the label moves, so a process that dies between the two leaves an entry that nothing
followed: the next one does not start where it ends, nor is the label there.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "promotions.jsonl"


@contextmanager
def alone(root: Path, name: str) -> Iterator[None]:
    """Waits until no other process changes this model's default. The lock ends with the process that holds it.

    Raises:
        OSError: The repository is not writable, or has no such model.
    """
    with (root / name / FILE).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(root: Path, name: str) -> list[dict[str, Any]]:
    """All changes of a model's default, oldest first. A last line that was cut off is passed over."""
    path = root / name / FILE
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # the process died while it wrote this line, so the label was not moved
    return entries


def record(root: Path, name: str, entry: dict[str, Any]) -> None:
    """Adds a change that is about to be made, with its time. Whoever does so is `alone`.

    Args:
        root: The repository.
        name: Of the model.
        entry: `action` (promote or rollback), `from` and `to`, and what else is to be known.

    Raises:
        OSError: Not writable, or the disk is full: the change must not be made.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
    with (root / name / FILE).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n" if _is_cut_off(root / name / FILE) else f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def _is_cut_off(path: Path) -> bool:
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")
