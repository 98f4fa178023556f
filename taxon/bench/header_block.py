"""Finds the status of a call in an HTTP/2 header block (RFC 7541). Knows only what that takes: the decoder's table has
no room (SETTINGS_HEADER_TABLE_SIZE 0), so that blocks stand for themselves, and of Huffman's codes the needed ones.
"""

from collections.abc import Iterator

# RFC 7541, appendix B: character → code and its length in bits.
CODES = {
    "0": (0x0, 5),
    "1": (0x1, 5),
    "2": (0x2, 5),
    "a": (0x3, 5),
    "c": (0x4, 5),
    "s": (0x8, 5),
    "t": (0x9, 5),
    "-": (0x16, 6),
    "3": (0x19, 6),
    "4": (0x1A, 6),
    "5": (0x1B, 6),
    "6": (0x1C, 6),
    "7": (0x1D, 6),
    "8": (0x1E, 6),
    "9": (0x1F, 6),
    "g": (0x26, 6),
    "p": (0x2B, 6),
    "r": (0x2C, 6),
    "u": (0x2D, 6),
}


def huffman(text: str) -> bytes:
    """The text in Huffman's code, filled up with ones."""
    bits = "".join(f"{code:0{length}b}" for code, length in (CODES[character] for character in text))
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


GRPC_STATUS = b"grpc-status"
NAMES = {GRPC_STATUS: GRPC_STATUS, huffman("grpc-status"): GRPC_STATUS}
STATUSES = {spelt: code for code in range(17) for spelt in (str(code).encode(), huffman(str(code)))}
HTTP_STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""Of the static table, whose entries 8 to 14 have the name `:status`."""
OK, UNKNOWN, PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 0, 2, 7, 12, 13, 14, 16
OF_HTTP = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
"""What a gRPC client makes of an answer without a status: gRPC's http-grpc-status-mapping."""
MOST_SHIFT = 28
"""Of a number's last seven bits."""
SPELT_HTTP = {spelt: code for code in OF_HTTP for spelt in (str(code).encode(), huffman(str(code)))}


def status(block: bytes) -> int:
    """The gRPC status of the block that ends an answer.

    Raises:
        ValueError: The block is not what this reads.
    """
    http = 0
    for name, value in _fields(block):
        if name == GRPC_STATUS:
            return STATUSES.get(value, UNKNOWN)
        if isinstance(name, int) and name in HTTP_STATUSES:
            http = SPELT_HTTP.get(value, 0) if value else HTTP_STATUSES[name]
    return OF_HTTP.get(http, UNKNOWN)


def _fields(block: bytes) -> Iterator[tuple[bytes | int, bytes]]:
    """Names, or their index, and values as they are spelt; a field of the static table has no value here."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _number(block, at, 7)
            yield index, b""
            continue
        if first & 0xE0 == 0x20:  # the table's size
            _, at = _number(block, at, 5)
            continue
        index, at = _number(block, at, 6 if first & 0x40 else 4)
        name: bytes | int = index
        if not index:
            spelt, at = _string(block, at)
            name = NAMES.get(spelt, spelt)
        value, at = _string(block, at)
        yield name, value


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, at, shift = block[at] & most, at + 1, 0
    if value < most:
        return value, at
    while True:
        if at >= len(block):
            raise ValueError("a number of a header block has no end")
        if shift > MOST_SHIFT:
            raise ValueError("a number of a header block is larger than a block")
        byte, at = block[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(block):
        raise ValueError("a header block ends within a field")
    length, at = _number(block, at, 7)
    if at + length > len(block):
        raise ValueError("a header block ends within a string")
    return block[at : at + length], at + length
