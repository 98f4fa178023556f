"""Which files below a folder are pictures, by their names, and how such names are compared and printed.

Opens no file. Hidden files are passed over, symbolic links are followed, everything else that is left out is named.
"""

import os
import re
import shlex
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif")
NOT_A_PICTURE = f"is not a picture by its name ({', '.join(EXTENSIONS)})"
CLUTTER = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""What systems leave in folders, beside hidden files."""

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class FolderError(ValueError):
    """A folder of pictures that cannot be read as it is. The message is one sentence that says what to do."""


def pictures(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The pictures below a folder, sorted, and what else is there with the reason why it is none.

    Raises:
        FolderError: A name is not UTF-8.
    """
    found: list[Path] = []
    others: list[tuple[Path, str]] = []
    _walk(folder, frozenset(), found, others)
    return found, others


def _walk(folder: Path, above: frozenset[str], found: list[Path], others: list[tuple[Path, str]]) -> None:
    """`above` are the real paths of the folders that led here: a link to one of them would never end."""
    real = os.path.realpath(folder)
    if real in above:
        others.append((folder, "is a symbolic link to a folder that holds it"))
        return
    try:
        with os.scandir(folder) as listed:
            entries = sorted(
                (entry for entry in listed if not is_passed_over(entry.name)), key=lambda entry: entry.name
            )
    except OSError as error:
        others.append((folder, f"cannot be read: {error.strerror}"))
        return
    inner = []
    for entry in entries:
        path = folder / entry.name
        check_name(path)
        if _is_folder(entry):
            inner.append(path)
        elif not _is_file(entry):  # a pipe would be waited for
            others.append((path, "is a broken symbolic link" if entry.is_symlink() else "is not a regular file"))
        elif entry.name.lower().endswith(EXTENSIONS):
            found.append(path)
        else:
            others.append((path, NOT_A_PICTURE))
    for path in inner:
        _walk(path, above | {real}, found, others)


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems leave behind."""
    return name.startswith(".") or name in CLUTTER


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that may mean something, sorted by name."""
    with os.scandir(folder) as listed:
        return sorted(folder / entry.name for entry in listed if not is_passed_over(entry.name) and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also through a symbolic link; not if that leads nowhere, or round and round."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """As `_is_folder`."""
    with suppress(OSError):
        return entry.is_file()
    return False


def direct(folder: Path) -> Iterator[Path]:
    """The pictures that lie in the folder itself."""
    with os.scandir(folder) as listed:
        for entry in listed:
            if not is_passed_over(entry.name) and entry.name.lower().endswith(EXTENSIONS) and _is_file(entry):
                yield folder / entry.name


def check_name(path: Path) -> None:
    """Refuses names that could not be written into a list or printed on a line.

    Raises:
        FolderError: The path is not UTF-8, or has a line end or another control character in it.
    """
    if not is_utf8(str(path)):
        raise FolderError(f"the name of {printable(path)} is not UTF-8: rename it")
    if CONTROL.search(str(path)):
        raise FolderError(f"the name of {printable(path)} has a control character in it: rename it")


def within(path: Path, root: Path) -> Path | None:
    """A path below a folder, as both are written or, where that does not lie below, as symbolic links lead; None if it
    is elsewhere.
    """
    written, folder = as_written(path), as_written(root)
    if written.is_relative_to(folder):
        return written.relative_to(folder)
    real = root.resolve()
    ways = (written, path.parent.resolve() / path.name, path.resolve())
    return next((one.relative_to(real) for one in ways if one.is_relative_to(real)), None)


def as_written(path: Path) -> Path:
    """The absolute path without `.` and `..`; symbolic links in it stay."""
    return Path(os.path.normpath(path.absolute()))


def is_utf8(text: str) -> bool:
    """Whether a name, as the system gave it, is text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """The path on one line: what is not UTF-8, and control characters, as their numbers."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def pasted(path: Path) -> str:
    """The path as a word of a command that is to be typed: quoted, and not to be taken for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def composed(name: str) -> str:
    """The one spelling of a name: macOS writes `é` as two characters, others as one."""
    return unicodedata.normalize("NFC", name)
