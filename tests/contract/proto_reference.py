"""The page of messages, made from the `.proto` files themselves: comments and all. Reads what `buf format` writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD = """# Messages of taxon.v1

Made from the files below `proto/taxon/v1`; a test keeps it so. How to call all this, and what
errors mean, is in [Calling the API](../api.md).
"""
OPENS = re.compile(r"(service|message|enum|oneof|rpc) (\w+)(.*)")
FIELD = re.compile(r"((?:optional |repeated )?(?:map<[\w., ]+>|[\w.]+)) (\w+) = \d+(.*)")
VALUE = re.compile(r"(\w+) = \d+;")


@dataclass
class Element:
    """A service, message, enum, method, field or value."""

    kind: str
    name: str
    comment: str
    type: str = ""
    parts: list["Element"] = field(default_factory=list)


def elements(text: str) -> list[Element]:
    """What stands at the top of a file, with what is in it."""
    top = Element("file", "", "")
    stack, comment, depth_of_options = [top], [], 0
    for line in map(str.strip, text.splitlines()):
        if depth_of_options:
            depth_of_options += line.count("{") - line.count("}")
        elif line.startswith("//"):
            comment.append(line.removeprefix("//").removeprefix(" "))
        elif line.startswith(("option ", "syntax", "package", "import", "reserved")) or not line:
            depth_of_options = line.count("{") - line.count("}")
            comment = [] if not line else comment
        elif line == "}":
            stack.pop()
        else:
            element = _element(line, "\n".join(comment))
            stack[-1].parts.append(element)
            comment = []
            if line.endswith("{"):
                stack.append(element)
    assert len(stack) == 1, "braces do not match"
    return top.parts


def _element(line: str, comment: str) -> Element:
    if found := OPENS.match(line):
        kind, name, rest = found.groups()
        return Element(kind, name, comment, rest.strip(" {;"))
    if found := VALUE.match(line):
        return Element("value", found[1], comment)
    if found := FIELD.match(line):
        required = " (required)" if "REQUIRED" in found[3] else ""
        return Element("field", found[2], comment, found[1] + required)
    raise ValueError(f"cannot read {line!r}")


def reference(folder: Path) -> str:
    """The page."""
    parts = [HEAD]
    for file in sorted(folder.glob("*.proto")):
        parts.append(f"## {file.stem.replace('_', ' ').capitalize()}\n")
        for element in elements(file.read_text(encoding="utf-8")):
            parts += _section(element)
    return "\n".join(parts)


def _section(element: Element) -> Iterator[str]:
    yield f"### {element.name}\n"
    yield element.comment + "\n"
    if element.kind == "service":
        for method in element.parts:
            yield f"#### {element.name}.{method.name}\n"
            yield f"`{method.type}`\n"
            yield method.comment + "\n"
        return
    rows = [*_rows(element, "")]
    if not rows:
        return
    yield "| value | meaning |\n|---|---|" if element.kind == "enum" else "| field | type | meaning |\n|---|---|---|"
    yield from rows
    yield ""


def _rows(element: Element, within: str) -> Iterator[str]:
    for part in element.parts:
        meaning = part.comment.replace("\n\n", "<br>").replace("\n", " ").replace("|", "\\|")
        if part.kind == "value":
            yield f"| `{part.name}` | {meaning} |"
        elif part.kind == "oneof":
            yield from _rows(part, f"one of `{part.name}`; ")
        elif part.kind == "field":
            yield f"| `{part.name}` | {within}`{part.type}` | {meaning} |"
