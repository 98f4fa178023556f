"""Which version of a model is the default, and what was it before.

The label `stable` is the truth; every change of it is recorded first, see `default_history`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taxon.bundle import default_history, store, version_labels
from taxon.bundle.manifest import BundleError
from taxon.bundle.store import Bundle
from taxon.training.errors import TrainingError


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


def keep_default(root: Path, name: str, version: int) -> None:
    """Labels the version that answers by default, if none is labelled: the newest would, whatever is published next.

    Raises:
        PromotionError: Another version is the default.
        OSError: The repository is not writable.
    """
    with _alone(root, name):
        if (now := current_version(root, name, 0)) != version:
            raise PromotionError(f"the default of {name} went from {version} to {now} meanwhile: compare again")
        if version_labels.STABLE not in version_labels.read(root, name):
            version_labels.write(root, name, version_labels.STABLE, version)


def promote(
    root: Path, name: str, version: int, current: int | None, figures: Mapping[str, Any] | None, reason: str | None
) -> None:
    """Records the promotion, then moves the label: a process that dies between the two has changed nothing. Of two
    at once one waits for the other, and then finds another default than it compared with.

    Args:
        root: The repository.
        name: The model.
        version: The new default.
        current: The default so far; None if the model had no other version.
        figures: Of the comparison, for the record; None if there was nothing to compare with.
        reason: Why it was forced, for the record.

    Raises:
        PromotionError: Another version is the default by now.
        OSError: The repository is not writable or full; the default is as it was.
    """
    with _alone(root, name):
        if (now := current_version(root, name, version)) != current:
            raise PromotionError(f"the default of {name} went from {current} to {now} meanwhile: compare again")
        entry = {"action": "promote", "from": current, "to": version, "reason": reason, "comparison": figures}
        default_history.record(root, name, entry)
        version_labels.write(root, name, version_labels.STABLE, version)


def rollback(root: Path, name: str, reason: str = "") -> int:
    """Moves the label back to what the default was before the promotion of the present one.

    Returns:
        The version that is the default now.

    Raises:
        PromotionError: Nothing was promoted, or the earlier version is damaged or gone.
    """
    with _alone(root, name):
        current = version_labels.read(root, name).get(version_labels.STABLE)
        defaults = _defaults_before(default_history.read(root, name), current)
        if current is None or not defaults or (earlier := defaults[-1]) is None:
            raise PromotionError(f"{name} has no earlier default to go back to")
        try:
            existing(root, name, earlier)
        except (PromotionError, BundleError) as error:
            raise PromotionError(f"the default before cannot serve: {error}; `taxon promote` another one") from error
        default_history.record(root, name, {"action": "rollback", "from": current, "to": earlier, "reason": reason})
        version_labels.write(root, name, version_labels.STABLE, earlier)
        return earlier


def _defaults_before(entries: list[dict[str, Any]], current: int | None) -> list[int | None]:
    """The defaults to which rollbacks lead, the nearest last."""
    defaults: list[int | None] = []
    for entry, then in zip(entries, [*(entry["from"] for entry in entries[1:]), current], strict=False):
        if entry["to"] != then:
            continue  # recorded by a process that died before it moved the label
        if entry["action"] == "promote":
            defaults.append(entry["from"])
        elif defaults:
            defaults.pop()
    return defaults


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """See `default_history.alone`.

    Raises:
        PromotionError: The repository has no such model.
    """
    if name not in store.names(root):
        raise PromotionError(f"{root} has no model {name}")
    with default_history.alone(root, name):
        yield


def existing(root: Path, name: str, version: int) -> Bundle:
    """A published version, checked.

    Raises:
        PromotionError: There is none.
        BundleError: It is damaged.
    """
    if version not in store.versions(root, name):
        there = ", ".join(map(str, store.versions(root, name))) or "none"
        raise PromotionError(f"{root} has no version {version} of {name}; it has {there}")
    return store.read(root, name, version)
