"""The folder layout of bundles: `<root>/<name>/<version>/`, with `manifest.json` written last.

Reads with every digest checked; publishes so that a bundle is either wholly there or not at all.
"""

import hashlib
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from taxon.bundle import atomic_files, folder_lock, graph_files, signing, version_numbers
from taxon.bundle.manifest import NAME_PATTERN, BundleError, Manifest, check_name, parse
from taxon.bundle.reading import reading
from taxon.bundle.signing import Check, Sign

MANIFEST = "manifest.json"
STAGING = ".staging-"
ABANDONED_AFTER_S = 24 * 3600.0
"""The lock tells who lives. The age is for publishers that have none: one between making its folder and holding it, one
of an earlier release, one on another machine whose locks do not reach this one.
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files have been checked against its manifest."""

    folder: Path
    manifest: Manifest

    def read(self, file: str) -> bytes:
        """The bytes of one of the manifest's files.

        Raises:
            BundleError: They have changed since the bundle was checked, or cannot be read.
        """
        with reading(file):
            content = (self.folder / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest.files[file]:
            raise BundleError(f"{file} has changed since it was checked")
        return content


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal.

    Raises:
        BundleError: It cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(root: Path, name: str) -> list[int]:
    """The published versions of a model, ascending. Empty if it has none, or if its folder cannot be read.

    A version whose folder cannot be looked into is among them: `read` says what is wrong with it.
    """
    try:
        entries = list((root / name).iterdir())
    except OSError:
        return []
    return sorted(int(entry.name) for entry in entries if _is_version(entry.name) and _has_manifest(entry))


def names(root: Path) -> list[str]:
    """The models that have a published version, in alphabetical order. What is no model, such as `lost+found`, is
    passed over, whether or not it can be read.

    Raises:
        OSError: `root` does not exist or cannot be read.
    """
    return sorted(
        entry.name for entry in root.iterdir() if re.fullmatch(NAME_PATTERN, entry.name) and versions(root, entry.name)
    )


def read(root: Path, name: str, version: int, check_signature: Check | None = None) -> Bundle:
    """Reads `<root>/<name>/<version>` and checks every file.

    Args:
        root: The repository.
        name: Of the model.
        version: Of the model.
        check_signature: Refuses a manifest without the right signature; None asks for none.

    Raises:
        BundleError: The manifest is missing or not valid, speaks of another name or version, a file is missing,
            cannot be read, leads out of the folder, or has another digest, a graph keeps weights elsewhere, or the
            signature is not the required one.
    """
    folder = root / name / str(version)
    bundle = read_folder(folder, check_signature)
    if (bundle.manifest.name, bundle.manifest.version) != (name, version):
        raise BundleError(
            f"{folder} holds {bundle.manifest.name} version {bundle.manifest.version}; do not rename bundles"
        )
    return bundle


def read_folder(folder: Path, check_signature: Check | None = None) -> Bundle:
    """As `read`, wherever the folder lies."""
    with reading(folder / MANIFEST):
        written = (folder / MANIFEST).read_bytes()
    if check_signature is not None:
        check_signature(written, folder)  # before anything in it is believed
    manifest = parse(written)
    needed = {golden.file for golden in manifest.golden} | {variant.file for variant in manifest.variants}
    needed |= {manifest.maps.weights} if manifest.maps else set()
    if held := manifest.thumbnails:
        needed |= {held.features, *(picture.file for picture in held.pictures)}
    if unlisted := sorted(needed - manifest.files.keys()):
        raise BundleError(f"manifest.json gives no digest for {unlisted}")
    for file, expected in manifest.files.items():
        with reading(file):
            _check_file(folder, file, expected)
    for variant in manifest.variants:
        if unproven := sorted(set(graph_files.external_files(folder / variant.file)) - manifest.files.keys()):
            raise BundleError(f"{variant.file} keeps weights in {unproven}, for which manifest.json gives no digest")
    return Bundle(folder, manifest)


@contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """A new folder on the repository's file system to write a bundle's files into, for `publish`.

    It is removed at the end unless it has been published. Those of publishers that were killed are removed first.
    """
    model = root / check_name(name)
    atomic_files.make_folder(model)
    _remove_abandoned(model)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=model))
    try:
        with folder_lock.held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, draft: Manifest, sign: Sign | None = None) -> Bundle:
    """Gives a staged folder the next version, which none ever had: fills in `version` and `files`, writes the manifest,
    signs it if there is a key, syncs everything, renames. Two publishers at once get two versions.

    Raises:
        BundleError: The folder lacks a file that the draft names, or see `version_numbers.last`.
        OSError: The disk is full or not writable; nothing has been published.
    """
    model = staged.parent
    files = {
        path.relative_to(staged).as_posix(): sha256(path)
        for path in sorted(staged.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    for path in staged.rglob("*"):
        atomic_files.sync(path)
    staged.chmod(0o755)  # mkdtemp's 0700 would hide the bundle from the service's user
    root, name = model.parent, model.name
    atomic_files.sync(root)  # whoever made the model's folder may have died before it was synced
    with folder_lock.held(model):
        last = version_numbers.last(root, name, versions(root, name))
        for version in itertools.count(last + 1):
            manifest = draft.model_copy(update={"version": version, "files": files})
            (staged / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
            atomic_files.sync(staged / MANIFEST)
            if sign is not None:
                signing.write(staged, sign)
            atomic_files.sync(staged)
            read_folder(staged)
            published = model / str(version)
            version_numbers.give_away(root, name, version)
            try:
                staged.rename(published)
            except OSError:
                if published.exists():
                    continue  # put there by hand, or by another publisher where folders have no locks
                version_numbers.give_away(root, name, last)  # nobody has got it
                raise
            break
        atomic_files.sync(model)
    return Bundle(published, manifest)


def admit(staged: Path, check_signature: Check | None = None) -> Bundle:
    """Gives a staged folder, which holds a bundle that was published elsewhere, the version that its manifest says.

    Raises:
        BundleError: See `read`; or another bundle has that version here.
        OSError: The disk is full or not writable; nothing has been published.
    """
    model = staged.parent
    manifest = read_folder(staged, check_signature).manifest
    root, name = model.parent, model.name
    if manifest.name != name:
        raise BundleError(f"it holds {manifest.name}, not {name}")
    for path in (*staged.rglob("*"), staged, root):
        atomic_files.sync(path)
    staged.chmod(0o755)
    published = model / str(manifest.version)
    with folder_lock.held(model):
        if published.exists():
            if not _has_manifest(published) or sha256(published / MANIFEST) != sha256(staged / MANIFEST):
                raise BundleError(f"{published} is there already, and is another bundle")
            return read_folder(published, check_signature)
        if manifest.version > version_numbers.last(root, name, versions(root, name)):
            version_numbers.give_away(root, name, manifest.version)
        staged.rename(published)
        atomic_files.sync(model)
    return Bundle(published, manifest)


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and not text.startswith("0")


def _has_manifest(version: Path) -> bool:
    try:
        return (version / MANIFEST).is_file()
    except OSError:
        return True


def _check_file(folder: Path, file: str, expected: str) -> None:
    path = folder / file
    if not path.is_file():
        raise BundleError(f"{file} is missing")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{file} leads out of the bundle")
    if (actual := sha256(path)) != expected:
        raise BundleError(f"{file} has sha256 {actual}, the manifest says {expected}")


def _remove_abandoned(model: Path) -> None:
    for folder in model.glob(f"{STAGING}*"):
        with suppress(OSError):  # it has gone, or is another user's
            is_old = time.time() - folder.stat().st_mtime > ABANDONED_AFTER_S
            if is_old and folder_lock.is_free(folder):
                shutil.rmtree(folder, ignore_errors=True)
