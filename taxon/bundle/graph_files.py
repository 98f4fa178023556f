"""The other files of an ONNX graph: weights that it keeps beside itself, found without the package onnx.

Reads protobuf's wire format as far as tensors may be: fields are numbered by onnx.proto. No weights are read.
"""

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from taxon.bundle.manifest import BundleError
from taxon.bundle.reading import reading
from taxon.mistaken import MISTAKEN_BYTES, mistaken_for

PARTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message lead on to tensors, and what they are."""
EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 13, 14, 1
KEY, VALUE, LOCATION = 1, 2, b"location"
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
DEEPEST = 100
"""Messages within messages: protobuf itself reads no deeper."""


def external_files(graph: Path) -> tuple[str, ...]:
    """The paths, as the graph writes them, of the files that it keeps tensors in; sorted, each once.

    Raises:
        BundleError: The file cannot be read, or not to its end as a graph: what it keeps elsewhere is not known then.
    """
    with reading(graph), graph.open("rb") as file:
        beginning = file.read(MISTAKEN_BYTES)
        if mistaken := mistaken_for(beginning):
            raise BundleError(f"{graph.name} is {mistaken}, not an ONNX graph")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            try:
                return tuple(sorted(set(_locations(view, "model", 0))))
            except (ValueError, IndexError):
                pass  # its frames hold parts of the map, which could not be closed
    raise BundleError(f"{graph.name} is no whole ONNX graph")


def check_beside(folder: Path, graph_file: str) -> tuple[str, ...]:
    """The graph's other files, all of which lie in its folder.

    Raises:
        BundleError: One is missing or leads out of the folder, or something cannot be read.
    """
    files = external_files(folder / graph_file)
    for file in files:
        if Path(file).is_absolute() or not (folder / file).resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{graph_file} keeps weights in {file!r}, which leads out of its folder")
        if not (folder / file).is_file():
            raise BundleError(f"{graph_file} keeps weights in {file!r}, which is missing beside it")
    return files


def digest(graph: Path) -> str:
    """sha256, in hexadecimal, of a graph and of the files that it keeps tensors in.

    Raises:
        BundleError: See `check_beside`.
    """
    files = check_beside(graph.parent, graph.name)
    whole = hashlib.sha256()
    for file in (graph.name, *files):
        with reading(file), (graph.parent / file).open("rb") as content:
            one = hashlib.file_digest(content, "sha256")
        if not files:
            return one.hexdigest()
        whole.update(one.digest())
    return whole.hexdigest()


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise ValueError("graphs within graphs without end")
    if kind == "tensor":
        yield from _location(message)
        return
    parts = PARTS[kind]
    for number, value in _fields(message):
        if number in parts and isinstance(value, memoryview):
            yield from _locations(value, parts[number], depth + 1)


def _location(tensor: memoryview) -> Iterator[str]:
    """Of one tensor, if it is kept outside."""
    outside, entries = False, []
    for number, value in _fields(tensor):
        if number == DATA_LOCATION:
            outside = value == EXTERNAL
        elif number == EXTERNAL_DATA and isinstance(value, memoryview):
            entries.append({key: bytes(text) for key, text in _fields(value) if isinstance(text, memoryview)})
    if outside:
        for entry in entries:
            if entry.get(KEY) == LOCATION:
                yield entry.get(VALUE, b"").decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, value) of each field: a number, or the bytes of what has a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif wire == LENGTH:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field is longer than what holds it")
            yield number, message[at : at + length]
            at += length
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"there is no wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")
