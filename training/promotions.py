"""Which version of a model is the default, and what was it before.

The label file `labels/stable` is the truth; `promotions.jsonl` beside the versions records every change and why.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxon.bundle import store, version_labels
from taxon.bundle.store import Bundle
from training.errors import TrainingError

HISTORY = "promotions.jsonl"


class PromotionError(TrainingError):
    """A version that does not become the default."""


def current_version(root: Path, name: str, candidate: int) -> int | None:
    """The version to compare with: `stable`, else the newest before the candidate, else the newest other one.

    Raises:
        PromotionError: The candidate is the default already.
    """
    if (stable := version_labels.read(root, name).get(version_labels.STABLE)) is not None:
        if stable == candidate:
            raise PromotionError(f"version {candidate} of {name} is the default already")
        return stable
    others = [version for version in store.versions(root, name) if version != candidate]
    return max([version for version in others if version < candidate] or others, default=None)


def promote(
    root: Path, name: str, version: int, current: int | None, figures: Mapping[str, Any] | None, reason: str | None
) -> None:
    """Records the promotion, then moves the label: a process that dies between the two has changed nothing.

    Args:
        root: The repository.
        name: The model.
        version: The new default.
        current: The default so far; None if the model had no other version.
        figures: Of the comparison, for the record.
        reason: Why it was forced, for the record.

    Raises:
        OSError: The repository is not writable.
    """
    _record(root, name, {"action": "promote", "from": current, "to": version, "reason": reason, "comparison": figures})
    version_labels.write(root, name, version_labels.STABLE, version)


def rollback(root: Path, name: str, reason: str = "") -> int:
    """Moves the label back to what the default was before the promotion of the present one.

    Returns:
        The version that is the default now.

    Raises:
        PromotionError: Nothing was promoted, or the earlier version is gone.
        BundleError: The earlier version is damaged.
    """
    current = version_labels.read(root, name).get(version_labels.STABLE)
    defaults: list[int | None] = []
    for entry in history(root, name):
        if entry["action"] == "promote":
            defaults.append(entry["from"])
        elif defaults:
            defaults.pop()
    while defaults and defaults[-1] == current:  # recorded by a process that died before it moved the label
        defaults.pop()
    if current is None or not defaults or (earlier := defaults[-1]) is None:
        raise PromotionError(f"{name} has no earlier default to go back to")
    existing(root, name, earlier)
    _record(root, name, {"action": "rollback", "from": current, "to": earlier, "reason": reason})
    version_labels.write(root, name, version_labels.STABLE, earlier)
    return earlier


def history(root: Path, name: str) -> list[dict[str, Any]]:
    """All promotions and rollbacks of a model, oldest first. A last line that was cut off is passed over."""
    path = root / name / HISTORY
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # the process died while it wrote this line, so the label was not moved
    return entries


def _record(root: Path, name: str, entry: dict[str, Any]) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
    with (root / name / HISTORY).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n" if _cut_off(root / name / HISTORY) else f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def _cut_off(path: Path) -> bool:
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def existing(root: Path, name: str, version: int) -> Bundle:
    """A published version, checked.

    Raises:
        PromotionError: There is none.
        BundleError: It is damaged.
    """
    if version not in store.versions(root, name):
        raise PromotionError(f"{root} has no version {version} of {name}; it has {store.versions(root, name)}")
    return store.read(root, name, version)
