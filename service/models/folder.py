"""The folder of models → what is to be loaded: bundles, and graphs without a manifest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from taxon.bundle import store, traffic
from taxon.bundle.manifest import BundleError
from taxon.bundle.traffic import STABLE, Traffic
from taxon.picture_files import is_passed_over, printable
from taxon.service.models.config_pbtxt import read_config
from taxon.service.runtime.description import GraphConfig

GRAPH_SUFFIX = ".onnx"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
VERSION_PATTERN = r"[1-9][0-9]{0,17}"

# No version has this number: nothing is the default as long as nobody can read what is.
UNREADABLE = Traffic.model_construct(labels={STABLE: 0})

BROKEN = "is a symbolic link that leads nowhere"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One version in the folder."""

    name: str
    version: int
    config: GraphConfig | None
    """Of a graph without a manifest; None: it is a bundle."""
    refused: str = ""
    """Why it cannot even be tried."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in the folder that looks like a model and is not served."""

    name: str
    """Of its folder or file."""
    reason: str
    """One sentence, which says what to do."""


def left_out(root: Path, names: Sequence[str] | None = None) -> list[LeftOut]:
    """What lies in the folder and is no model, or has parts that are no versions. Blocks.

    Args:
        root: The folder.
        names: Only of these models; None: of all.
    """
    try:
        entries = sorted(entry.name for entry in root.iterdir()) if names is None else names
        found = [(name, _why_left_out(root / name)) for name in entries if not is_passed_over(name)]
    except OSError:
        return []  # `scan` says so
    return [LeftOut(printable(name), reason) for name, reason in found if reason]


def _why_left_out(entry: Path) -> str:
    try:
        if entry.is_symlink() and not entry.exists():
            return BROKEN
        if not entry.is_dir():
            return "a graph that lies in no model's folder: move it to NAME/1/" if entry.suffix == GRAPH_SUFFIX else ""
        inside = sorted(part for part in entry.iterdir() if not is_passed_over(part.name))
        numbered = [part for part in inside if re.fullmatch(VERSION_PATTERN, part.name)]
        versions = [part for part in numbered if part.is_dir()]
        models = [part for part in inside if part.is_dir() and _is_model(part)]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not re.fullmatch(NAME_PATTERN, entry.name):
        return "no name of a model: at most 128 ASCII letters, digits, . _ and -, a letter or digit first"
    misnamed = [printable(part.name) for part in models if part not in versions]
    if misnamed:
        return f"{', '.join(misnamed)} are no versions: name them 1, 2, 3 and so on, without letters or leading zeros"
    if any(part.suffix == GRAPH_SUFFIX or part.name == store.MANIFEST for part in inside if part.is_file()):
        return "its files lie beside the versions, not in one: move them into a folder 1"
    if odd := [part for part in numbered if part not in versions]:
        return f"the version {odd[0].name} {'is a file' if odd[0].exists() else BROKEN}"
    if not versions:
        return "holds no version: a folder 1 with a bundle or a graph"
    bundles = [part for part in versions if (part / store.MANIFEST).exists()]
    if without := [part.name for part in versions if part not in (bundles or models)]:
        missing = store.MANIFEST if bundles else f"{store.MANIFEST} and no *{GRAPH_SUFFIX}"
        return f"{', '.join(without)} have no {missing}: they are not served"
    return ""


def _is_model(version: Path) -> bool:
    return (version / store.MANIFEST).exists() or any(version.glob(f"*{GRAPH_SUFFIX}"))


def scan(root: Path, names: Sequence[str] | None = None) -> list[Found]:
    """What the folder holds, in the order in which it should be loaded: of each model the labelled version first, then
    from the latest. A model with a manifest is a bundle in all its versions. Blocks. What cannot be read is left out,
    and the log says so.

    Args:
        root: The folder.
        names: Only of these models; None: of all.
    """
    if names is None:
        try:
            names = sorted(entry.name for entry in root.iterdir() if re.fullmatch(NAME_PATTERN, entry.name))
        except OSError as error:
            log.error("model folder cannot be read", folder=str(root), reason=str(error))
            return []
    return [found for name in names for found in _versions(root, name)]


def _versions(root: Path, name: str) -> list[Found]:
    folder = root / name
    try:
        if not folder.is_dir():
            return []
        numbered = [entry for entry in folder.iterdir() if re.fullmatch(VERSION_PATTERN, entry.name)]
        bundles = [int(entry.name) for entry in numbered if (entry / store.MANIFEST).exists()]
        graphs = [] if bundles else [int(entry.name) for entry in numbered if any(entry.glob(f"*{GRAPH_SUFFIX}"))]
    except OSError as error:
        log.warning("folder is left out, it cannot be read", folder=str(folder), reason=str(error))
        return []
    stable = (declared(root, name) or UNREADABLE).labels.get(STABLE)
    if bundles:
        return [Found(name, version, None) for version in _ordered(bundles, stable)]
    if not graphs:
        return []
    try:
        config = read_config(folder)
    except BundleError as error:
        return [Found(name, version, None, str(error)) for version in _ordered(graphs, stable)]
    newest_first = sorted(graphs, reverse=True)
    served = [version for newer, version in enumerate(newest_first) if config.serves(version, newer)]
    return [Found(name, version, config) for version in _ordered(served, stable)]


def _ordered(versions: Sequence[int], first: int | None) -> list[int]:
    return sorted(versions, key=lambda version: (version != first, -version))


def declared(root: Path, name: str) -> Traffic | None:
    """Which version of a model is to answer what; None if it cannot be read, and the log says so. Blocks."""
    try:
        if not (root / name).is_dir():  # most likely its file system is away: nobody has taken the labels back
            return None
        return traffic.read(root, name)
    except (BundleError, OSError) as error:
        log.error("traffic cannot be read", model=name, reason=str(error))
        return None


def traffic_print(root: Path, name: str) -> tuple[int, ...]:
    """Changes with what is declared for a model: the time, in ns, first; 0 if nothing is. Blocks."""
    for path in (root / name / traffic.FILE, root / name / traffic.FOLDER):
        try:
            found = path.stat()
        except OSError:
            continue
        return found.st_mtime_ns, found.st_ino, found.st_size
    return (0,)
