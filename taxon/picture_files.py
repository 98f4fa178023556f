"""Which files below a folder are pictures, by their names, and how such names are compared and printed.

Opens no file. Hidden files are passed over, symbolic links are followed, everything else that is left out is named.
"""

import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator
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
    others: list[tuple[Path, str]] = []
    found = [Path(path) for path in _walk(str(folder), frozenset(), others.append, in_order=True)]
    return found, others


def streamed(folder: Path, tell: Callable[[tuple[Path, str]], None] = lambda _: None) -> Iterator[str]:
    """The same pictures in the order in which the disk lists them, without holding more of them than one. Names that
    `check_name` would refuse are among them.

    Args:
        folder: Where to look.
        tell: Told what else is there, with the reason why it is no picture.
    """
    return _walk(str(folder), frozenset(), tell, in_order=False)


def _walk(
    folder: str, above: frozenset[str], tell: Callable[[tuple[Path, str]], None], *, in_order: bool
) -> Iterator[str]:
    """`above` are the real paths of the folders that led here: a link to one of them would never end."""
    real = os.path.realpath(folder)
    if real in above:
        tell((Path(folder), "is a symbolic link to a folder that holds it"))
        return
    inner = []
    try:
        with os.scandir(folder) as listed:
            for entry in sorted(listed, key=lambda entry: entry.name) if in_order else listed:
                if is_passed_over(entry.name):
                    continue
                if in_order:
                    check_name(Path(entry.path))
                if _is_folder(entry):
                    inner.append(entry.path)
                elif not _is_file(entry):  # a pipe would be waited for
                    what = "is a broken symbolic link" if entry.is_symlink() else "is not a regular file"
                    tell((Path(entry.path), what))
                elif entry.name.lower().endswith(EXTENSIONS):
                    yield entry.path
                else:
                    tell((Path(entry.path), NOT_A_PICTURE))
    except OSError as error:
        tell((Path(folder), f"cannot be read: {error.strerror}"))
        return
    for path in inner:
        yield from _walk(path, above | {real}, tell, in_order=in_order)


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
