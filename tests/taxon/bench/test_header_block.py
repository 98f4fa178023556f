"""The one thing that is wanted of an answer's headers, as different servers spell it."""

import pytest

from taxon.bench.header_block import huffman, status

OK_STATUS = b"\x88"  # :status 200, of the static table


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    return bytes((first, len(name))) + name + bytes((len(value),)) + value


def squeezed(name: str, value: str, first: int = 0) -> bytes:
    name, value = huffman(name), huffman(value)
    return bytes((first, 0x80 | len(name))) + name + bytes((0x80 | len(value),)) + value


def test_huffman_as_in_the_standard():
    """RFC 7541, C.6.1: `302`, and C.4.3's digits in `custom-value` are letters that this does not know."""
    assert huffman("302") == bytes.fromhex("6402")


@pytest.mark.parametrize("first", [0x00, 0x10, 0x40])
@pytest.mark.parametrize("code", [0, 4, 8, 14, 16])
def test_a_status_in_either_spelling(first, code):
    assert status(literal(b"grpc-status", str(code).encode(), first)) == code
    assert status(squeezed("grpc-status", str(code), first)) == code


def test_a_status_behind_other_fields():
    told = literal(b"grpc-message", b"about grpc-status: 0") + literal(b"grpc-status", b"13")
    assert status(b"\x20" + OK_STATUS + literal(b"content-type", b"a" * 100) + told) == 13


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x88", 2),  # 200, and no word of gRPC
        (b"\x8d", 12),  # 404
        (b"\x48\x03503", 14),
        (b"\x48\x83" + huffman("503"), 14),
        (b"\x48\x03302", 2),
    ],
)
def test_what_a_proxy_answers_by_itself(block, code):
    assert status(block) == code


def test_numbers_have_an_end():
    """Each byte more would make all that follow dearer."""
    with pytest.raises(ValueError, match="larger than a block"):
        status(b"\xff" + b"\xff" * 60_000 + b"\x01")


@pytest.mark.parametrize("block", [b"\x00\x0bgrpc", b"\x00", b"\x40\x0bgrpc-status\x05", b"\xff\xff"])
def test_a_block_that_ends_too_soon(block):
    with pytest.raises(ValueError, match=r"has no end|ends within"):
        status(block)
