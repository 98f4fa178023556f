"""What is wrong with a file, in one sentence: what it rather is than what it should be, and what a library that could
not read it has to say.
"""

import re

MISTAKEN_BYTES = 512
"""Enough of a file's beginning to tell."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
USERINFO = re.compile(r"(?<=://)[^/\s]*@")


def mistaken_for(beginning: bytes) -> str:
    """What the file rather is, with what to do; empty if nothing that is known.

    Args:
        beginning: Its first `MISTAKEN_BYTES` bytes, or all.
    """
    if not beginning:
        return "empty"
    if beginning.startswith(LFS_POINTER):
        return "a git-LFS pointer (run `git lfs pull`)"
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (the download failed)"
    if start.startswith((b"<?xml", b"<svg", b"<error")):
        return "XML"
    return ""


def in_words(error: BaseException) -> str:
    """What an error says, for people: of the system's the file and its words, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def first_line(error: BaseException) -> str:
    """What a library says of its failure, without the advice and the traces that follow, and without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_userinfo(lines[0]) if lines else type(error).__name__


def without_userinfo(text: str) -> str:
    """The text with users and passwords left out of its URLs."""
    return USERINFO.sub("", text)
