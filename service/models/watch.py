"""Turns what changes in the folder of models into orders: new versions are loaded, deleted ones leave, refused ones are
tried again once their files have changed. By polling, which works on network file systems too.

A version that is being copied changes from look to look: what has changed is acted upon once it has stayed the same for
a whole period. What cannot be read is not taken to be deleted.
"""

import asyncio
import re
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from taxon.bundle import store
from taxon.service.models import config_pbtxt
from taxon.service.models.control import ModelControl
from taxon.service.models.folder import GRAPH_SUFFIX, NAME_PATTERN, VERSION_PATTERN
from taxon.service.models.repository import Repository

Version = tuple[str, int]
"""Of a model of that name."""
Prints = tuple[tuple[str, int, int], ...]
"""Path, time and size of every file that matters to a version."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """The folder at one moment."""

    versions: dict[Version, Prints] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    """Models whose folder cannot be read."""


class Watch:
    """The folder, as it was when it was looked at last, and what was made of it."""

    def __init__(self, root: Path, repository: Repository, control: ModelControl) -> None:
        """Looks at nothing yet.

        Args:
            root: The folder.
            repository: What is served.
            control: Who loads and unloads.
        """
        self._root = root
        self._repository = repository
        self._control = control
        self._seen = Seen()
        self._tried: dict[Version, Prints] = {}

    async def run(self, period_s: float) -> None:
        """Looks for ever."""
        await self.begin()
        while True:
            await asyncio.sleep(period_s)
            await self.look()

    async def begin(self) -> None:
        """Takes what is there now to be loaded by others."""
        seen: Seen | None = await asyncio.to_thread(look, self._root, ())
        self._seen = seen or Seen()
        self._tried = dict(self._seen.versions)

    async def look(self) -> None:
        """Looks once, and has done what follows."""
        served = {(model.name, model.version) for model in self._repository.listing()}
        now = await asyncio.to_thread(look, self._root, served)
        if now is None or (served and not now.versions):
            # Most likely its file system is away. Whatever could be loaded no more meanwhile is tried again then.
            self._tried = {version: prints for version, prints in self._tried.items() if version in served}
            return
        before, self._seen = self._seen, now
        self._tried = {version: prints for version, prints in self._tried.items() if version in now.versions}
        changed = {version for version, prints in now.versions.items() if before.versions.get(version) == prints}
        changed = {version for version in changed if self._is_new(version, now.versions[version])}
        for name in sorted({name for name, _ in changed}):
            mine = {version for version in changed if version[0] == name}
            self._tried |= {version: now.versions[version] for version in mine}
            await self._control.load_versions(name, {number for _, number in mine})
        known = served | {(state.name, state.version) for state in self._repository.refused()}
        for name, number in sorted(known - now.versions.keys() - before.versions.keys()):
            if name not in now.unreadable:
                await self._control.remove(name, number)

    def _is_new(self, version: Version, prints: Prints) -> bool:
        state = self._repository.known.states.get(version)
        return state is None or (state.reason != "unloaded" and self._tried.get(version) != prints)


def look(root: Path, served: Container[Version]) -> Seen | None:
    """What every version consists of; None if the folder cannot be read. Blocks.

    Args:
        root: The folder.
        served: Of their bundles the manifest is enough: whatever else they are is in it.
    """
    seen = Seen()
    try:
        models = [entry for entry in root.iterdir() if re.fullmatch(NAME_PATTERN, entry.name) and entry.is_dir()]
    except OSError:
        return None
    for model in models:
        try:
            for folder in [entry for entry in model.iterdir() if re.fullmatch(VERSION_PATTERN, entry.name)]:
                version = model.name, int(folder.name)
                if prints := _prints(folder, whole=version not in served):
                    seen.versions[version] = prints
        except OSError:
            seen.unreadable.add(model.name)
    return seen


def _prints(version: Path, *, whole: bool) -> Prints:
    """Empty if it is no version."""
    manifest = version / store.MANIFEST
    if manifest.is_file():
        files = sorted(version.rglob("*")) if whole else [manifest]
    elif any(version.glob(f"*{GRAPH_SUFFIX}")):
        files = [*sorted(version.rglob("*")), version.parent / config_pbtxt.FILE]
    else:
        return ()
    return tuple(_print(file) for file in files)


def _print(file: Path) -> tuple[str, int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return str(file), 0, 0
    return str(file), found.st_mtime_ns, found.st_size
