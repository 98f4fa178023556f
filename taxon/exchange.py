"""The commands `taxon push` and `taxon pull`: bundles in an object store or a shared folder, by digest.

A place holds `blobs/sha256/<digest>`, one for each content; a bundle is named by the digest of its `manifest.json`,
which holds those of all its files. Beside them `versions/<name>/<version>` says the digest, and
`signatures/<digest>` is the signature. What others may find is written last, and what is fetched is checked before it
is a version of the repository.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from taxon.blobs import Blobs, open_blobs
from taxon.bundle import atomic_files, signing, store
from taxon.bundle import manifest as manifests
from taxon.bundle.manifest import BundleError
from taxon.bundle.signing import Check, KeyFileError
from taxon.bundle.store import MANIFEST, Bundle

ALGORITHM = "sha256:"
MOST_BYTES = 8 * 2**20
"""Of what is read whole: a manifest, a pointer, a signature."""


def push(models: Path, name: str, version: int, blobs: Blobs) -> tuple[str, int]:
    """Sends a version; said again after it was interrupted, it sends the rest.

    Args:
        models: Repository.
        name: Of the model.
        version: Of the model.
        blobs: The place.

    Returns:
        The digest of the manifest, and how many bytes were sent: what is there already is not sent again.

    Raises:
        BundleError: The version is damaged, or the place has another bundle of its name and number.
        OSError: The place cannot be used.
    """
    bundle = store.read(models, name, version)
    digest = store.sha256(bundle.folder / MANIFEST)
    pointer = _pointer(name, version)
    if (known := _pointed(blobs, pointer)) not in (None, digest):
        raise BundleError(f"{name}/{version} is another bundle there: {ALGORITHM}{known}")
    sent = 0
    for file, content in (*bundle.manifest.files.items(), (MANIFEST, digest)):
        byte_count = (bundle.folder / file).stat().st_size
        if blobs.size(_blob(content)) != byte_count:
            blobs.put_file(_blob(content), bundle.folder / file)
            sent += byte_count
    signature = bundle.folder / signing.SIGNATURE
    if signature.exists():
        blobs.put_file(_signature(digest), signature)
    blobs.put({pointer: f"{ALGORITHM}{digest}\n".encode()})
    return digest, sent


def pull(reference: str, blobs: Blobs, models: Path, check_signature: Check | None = None) -> Bundle:
    """Fetches a bundle and makes it a version of a repository, with the number that it has, once all of it is checked.

    Args:
        reference: `sha256:…` as `push` said it, or `NAME/VERSION`.
        blobs: The place.
        models: Repository.
        check_signature: Refuses a bundle without the right signature.

    Returns:
        The version, which may have been there already.

    Raises:
        BundleError: There is no such bundle, what is there is not what its digest says, is another version than was
            asked for, is not signed as it must be, or see `store.admit`. Nothing has changed in the repository.
        OSError: The place cannot be used, or the repository not written.
    """
    digest = reference.removeprefix(ALGORITHM)
    is_pointed = digest == reference
    if is_pointed:
        name, _, version = reference.rpartition("/")
        pointed = _pointed(blobs, _pointer(name, version))
        if pointed is None:
            raise BundleError(f"there is no {reference}")
        digest = pointed
    written = _checked(blobs, digest)
    manifest = manifests.parse(written)
    if is_pointed and reference != (found := f"{manifest.name}/{manifest.version}"):
        raise BundleError(f"{reference} is damaged there: it leads to {found}")
    here = models / manifest.name / str(manifest.version)
    signed = blobs.size(_signature(digest)) is not None
    if (here / MANIFEST).is_file() and store.sha256(here / MANIFEST) == digest:
        if signed:  # perhaps since it was fetched
            _take_signature(blobs, digest, here, check_signature)
        return store.read(models, manifest.name, manifest.version, check_signature)
    with store.staging(models, manifest.name) as staged:
        (staged / MANIFEST).write_bytes(written)
        if signed:
            (staged / signing.SIGNATURE).write_bytes(_read(blobs, _signature(digest)))
        if check_signature is not None:
            check_signature(written, staged)  # before gigabytes are fetched
        for file, content in manifest.files.items():
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                blobs.get_file(_blob(content), staged / file)
            except FileNotFoundError as error:
                raise BundleError(f"{file} of {reference} is not there") from error
        return store.admit(staged, check_signature)


def _take_signature(blobs: Blobs, digest: str, here: Path, check_signature: Check | None) -> None:
    """One that is here gives way to one that has been checked only."""
    if check_signature is None and (here / signing.SIGNATURE).exists():
        return
    with store.staging(here.parent.parent, here.parent.name) as staged:
        (staged / signing.SIGNATURE).write_bytes(_read(blobs, _signature(digest)))
        if check_signature is not None:
            check_signature((here / MANIFEST).read_bytes(), staged)
        atomic_files.write(here / signing.SIGNATURE, (staged / signing.SIGNATURE).read_bytes())


def _read(blobs: Blobs, name: str) -> bytes:
    """A small content; `FileNotFoundError` if it is not there."""
    if (size := blobs.size(name) or 0) > MOST_BYTES:
        raise BundleError(f"{name} is damaged there: it has {size} bytes, at most {MOST_BYTES} are read")
    return blobs.get(name)


def _checked(blobs: Blobs, digest: str) -> bytes:
    try:
        content = _read(blobs, _blob(digest))
    except FileNotFoundError as error:
        raise BundleError(f"there is no {ALGORITHM}{digest}") from error
    if (actual := hashlib.sha256(content).hexdigest()) != digest:
        raise BundleError(f"{ALGORITHM}{digest} is damaged there: its content has {actual}")
    return content


def _pointed(blobs: Blobs, pointer: str) -> str | None:
    try:
        text = _read(blobs, pointer).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch(f"{ALGORITHM}[0-9a-f]{{64}}", text):
        raise BundleError(f"{pointer} is damaged there: {text[:80]!r}")
    return text.removeprefix(ALGORITHM)


def _pointer(name: str, version: int | str) -> str:
    return f"versions/{name}/{version}"


def _signature(digest: str) -> str:
    return f"signatures/{digest}"


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def push_main(argv: list[str]) -> int:
    """`taxon push`: 0, or 2 if it cannot be done."""
    parser = argparse.ArgumentParser(
        description="Send a version to an object store or a shared folder. Prints its digest, by which `taxon pull` "
        "fetches exactly this."
    )
    parser.add_argument("reference", type=_version, metavar="NAME/VERSION")
    _add_places(parser, "--to", "where to")
    options = parser.parse_args(argv)
    name, _, version = options.reference.rpartition("/")

    def done() -> dict[str, object]:
        digest, sent = push(options.models, name, int(version), open_blobs(options.place))
        return {"name": name, "version": int(version), "digest": f"{ALGORITHM}{digest}", "bytes_sent": sent}

    return _told("push", done)


def pull_main(argv: list[str]) -> int:
    """`taxon pull`: 0, or 2 if it cannot be done."""
    parser = argparse.ArgumentParser(
        description="Fetch a version that was pushed into a repository, where servers find it once all of it is "
        "checked. Interrupted, it leaves nothing that they would see."
    )
    parser.add_argument("reference", type=_reference, metavar="sha256:…|NAME/VERSION", help="as `taxon push` has said")
    _add_places(parser, "--from", "where from")
    parser.add_argument(
        "--require-signature",
        type=Path,
        metavar="FILE",
        help="PEM file of public keys: one must have signed it",
    )
    options = parser.parse_args(argv)

    def done() -> dict[str, object]:
        check = signing.checker(options.require_signature) if options.require_signature else None
        bundle = pull(options.reference, open_blobs(options.place), options.models, check)
        return {"name": bundle.manifest.name, "version": bundle.manifest.version, "folder": str(bundle.folder)}

    return _told("pull", done)


def _add_places(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    parser.add_argument(
        flag,
        dest="place",
        required=True,
        metavar="PLACE",
        help=f"{what}: s3://BUCKET/PREFIX or another URL, or folder",
    )
    parser.add_argument("--models", type=Path, default=Path("models"), help="model repository (default: models)")


def _version(text: str) -> str:
    if not re.fullmatch(rf"{manifests.NAME_PATTERN.strip('^$')}/[1-9][0-9]{{0,17}}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME/VERSION, such as pets/3")
    return text


def _reference(text: str) -> str:
    return text if re.fullmatch(f"{ALGORITHM}[0-9a-f]{{64}}", text) else _version(text)


def _told(command: str, done: Callable[[], dict[str, object]]) -> int:
    try:
        sys.stdout.write(json.dumps(done()) + "\n")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"taxon {command}: {where}{error.strerror or error}\n")
        return 2
    except (BundleError, KeyFileError) as error:
        sys.stderr.write(f"taxon {command}: {error}\n")
        return 2
    return 0
