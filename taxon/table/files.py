"""A folder, or a list of files → their names in chunks, however many there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from taxon.mistaken import MISTAKEN_BYTES, mistaken_for
from taxon.picture_files import CONTROL, EXTENSIONS, is_utf8, printable, streamed
from taxon.table.rows import NAME_INVALID, Row, failed

CHUNK = 128
"""Files that are given to a worker at once: what a kill has done anew, and what is in memory, is a few times that."""
CHUNK_BYTES = 2**15
"""Of their names, after which a chunk is full too: those that a worker has yet to read must fit into its socket, whose
other direction may be full of rows meanwhile.
"""
MOST_NAME_BYTES = 4096
"""Linux opens no longer path. A list may be any text."""
SHOWN_CHARACTERS = 200
"""Of a name that is longer."""


@dataclass
class LeftOut:
    """What lies in a folder and is no picture: counted, with the first of each reason."""

    count: Counter[str] = field(default_factory=Counter)
    first: dict[str, Path] = field(default_factory=dict)

    def add(self, found: tuple[Path, str]) -> None:
        """Takes note of one."""
        path, reason = found
        self.count[reason] += 1
        self.first.setdefault(reason, path)


@dataclass(frozen=True)
class Source:
    """Where the names come from: a folder, or a text file with a path on each line, relative to its own folder."""

    place: Path

    def __post_init__(self) -> None:
        if not self.place.exists():
            raise FileNotFoundError(f"{printable(self.place)} does not exist")
        if self.is_list:
            if self.place.suffix.lower() in (*EXTENSIONS, ".csv"):
                raise ValueError(
                    f"{printable(self.place)} is neither a folder nor a list of files, a path on each line"
                )
            with self.place.open("rb") as file:
                beginning = file.read(MISTAKEN_BYTES)
            if not beginning or b"\0" in beginning or (mistaken_for(beginning)):
                what = "binary" if b"\0" in beginning else mistaken_for(beginning)
                raise ValueError(f"{printable(self.place)} is {what}, not a list of files")

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return not self.place.is_dir()

    @property
    def base(self) -> str:
        """The folder that the names are relative to; empty: this process's."""
        return str(self.place.parent) if self.is_list else ""

    def names(self, left_out: LeftOut | None = None) -> Iterator[str]:
        """Every name: of a folder each once, of a list as often as it is there."""
        if not self.is_list:
            return streamed(self.place, (left_out or LeftOut()).add)
        return self._lines()

    def _lines(self) -> Iterator[str]:
        with self.place.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
            for line in lines:
                if name := line.rstrip("\r\n"):
                    yield name

    def chunks(self, left_out: LeftOut) -> Iterator[list[str]]:
        """The names, at most `CHUNK` at a time, and fewer of long ones."""
        chunk: list[str] = []
        size = 0
        for name in self.names(left_out):
            chunk.append(name)
            size += _byte_count(name)
            if len(chunk) == CHUNK or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def parted(names: list[str]) -> tuple[list[str], list[Row]]:
    """The names that can be written into a table, and rows for those that cannot."""
    good, bad = [], []
    for name in names:
        if _byte_count(name) > MOST_NAME_BYTES:
            shown = f"{printable(name[:SHOWN_CHARACTERS])}\N{HORIZONTAL ELLIPSIS}"
            bad.append(failed(shown, NAME_INVALID, f"the name has more than {MOST_NAME_BYTES:,} bytes"))
        elif is_utf8(name) and not CONTROL.search(name):
            good.append(name)
        else:
            bad.append(failed(printable(name), NAME_INVALID, "the name is not UTF-8 or has a control character in it"))
    return good, bad


def _byte_count(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))
