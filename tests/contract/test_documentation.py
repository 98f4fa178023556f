"""What the documents say must be what the commands do.

`TAXON_WRITE_DOCS=1 make test` rewrites `docs/configuration.md` from the commands themselves, and
`docs/reference/proto.md` from the `.proto` files.
"""

import argparse
import io
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxon.cli import COMMANDS, main
from taxon.service.api.statuses import TABLE
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2 import ErrorReason
from tests.contract.proto_reference import reference
from tests.walkthrough import blocks

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs/configuration.md"
FOLDERS = ("docs", "deploy", "examples")
WRITTEN = sorted({*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))})
WRITTEN.remove(CONFIGURATION)
"""The pages that people write, and that of messages, which has no commands."""
HEAD = """# Configuration

What `--help` says, command by command; a test keeps it so. Every option of `taxon serve` is also a variable:
`--max-queued-requests` is `TAXON_MAX_QUEUED_REQUESTS`. A flag wins over a variable, a variable over the default.
"""


def help_of(*words: str) -> tuple[str, list[str]]:
    """What a command prints, and the names of its own commands."""
    printed, own = io.StringIO(), []

    def print_help(parser, file=None):
        verbs = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        own.extend(name for choices in verbs for name in choices)
        printed.write(parser.format_help())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "argv", ["taxon"])
        patch.setattr(argparse.ArgumentParser, "print_help", print_help)
        with pytest.raises(SystemExit):
            main([*words, "--help"])
    return printed.getvalue().strip(), own


def sections() -> Iterator[str]:
    for name in COMMANDS:
        text, own = help_of(name)
        yield f"## taxon {name}\n\n```\n{text}\n```\n"
        for verb in own:
            yield f"### taxon {name} {verb}\n\n```\n{help_of(name, verb)[0]}\n```\n"


def rendered() -> str:
    return "\n".join([HEAD, *sections()])


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse draws usage differently elsewhere")
def test_configuration_is_what_help_says():
    if os.environ.get("TAXON_WRITE_DOCS"):
        CONFIGURATION.write_text(rendered())
    assert CONFIGURATION.read_text() == rendered()


def test_no_command_writes_into_the_folder_of_pictures_by_default():
    """On all pages that is `data`, where every folder is a class: that of the rounds became one."""
    assert "(default: data/" not in " ".join(CONFIGURATION.read_text().split())


def test_the_page_of_messages_is_what_the_files_say():
    page, made = ROOT / "docs/reference/proto.md", reference(ROOT / "proto/taxon/v1")
    if os.environ.get("TAXON_WRITE_DOCS"):
        page.write_text(made)
    assert page.read_text() == made
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            assert re.search(rf"^### {message.name}\n(?:(?!###).*\n)*\\| `{field.name}` \\|", made, flags=re.MULTILINE)


def commands_in(page: Path) -> Iterator[list[str]]:
    """The words of each `taxon …`, in blocks without what only a shell reads, and in running text."""
    fenced = "\n".join(text for _, text in blocks(page))
    for line in fenced.replace("\\\n", " ").splitlines():
        words = line.removeprefix("$ ")
        for called in re.findall(r"(?:^|&& |; |\()(taxon [a-z#-].*)", words):
            lexer = shlex.shlex(called, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            typed = [*itertools.takewhile(lambda word: word not in (";", "&", "&&", "|", ">", "<", ")"), lexer)]
            yield typed[1:]
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`taxon\s([a-z-][^`]*)`", prose):
        yield span.replace("…", "").split()


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix())
def test_every_command_on_a_page_exists_with_its_options(page):
    known = CONFIGURATION.read_text()
    for name, *words in commands_in(page):
        if name in ("--help", "--version"):
            continue
        section = known.partition(f"\n## taxon {name}\n")[2].partition("\n## ")[0]
        assert section, f"{page.name}: there is no taxon {name}"
        own = words[: words.index("--")] if "--" in words else words
        verbs = re.findall(rf"^### taxon {name} (.*)$", section, flags=re.MULTILINE)
        if verbs and own and not own[0].startswith("-"):
            assert {*own[0].split("|")} <= {*verbs}, f"{page.name}: there is no taxon {name} {own[0]}"
            section = section.partition(f"\n### taxon {name} {own[0]}\n")[2].partition("\n### ")[0]
        options = {*re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", section)}
        for option in (word.partition("=")[0].rstrip(".,;:") for word in own if word.startswith("-")):
            assert option in options, f"{page.name}: taxon {name} has no {option}"


def test_commands_are_found_wherever_a_page_has_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "By `taxon promote pets\n2` or so.\n\n```sh\n$ cd pets && taxon round pets --quiet > log  # every night\n"
        "(umask 077; taxon keys add a \\\n    --groups admin)\nmake taxon --odd\n```\n"
    )
    assert [*commands_in(page)] == [
        ["round", "pets", "--quiet"],
        ["keys", "add", "a", "--groups", "admin"],
        ["promote", "pets", "2"],
    ]


def test_the_readme_names_every_room():
    """One line per folder, and no line for a folder that is gone."""
    rooms = re.search(r"## The rooms\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[1]
    named, top = set(), ""
    for house, room in re.findall(r"^(?:(\w+)|  (\w+))/", rooms, flags=re.MULTILINE):
        top = house or top
        named.add(f"{top}/{room}" if room else top)
    houses = ("taxon", "service", "training")
    generated = {"taxon/v1", "taxon/inference", "taxon/service", "taxon/training"}
    folders = {
        path.relative_to(ROOT).as_posix()
        for house in houses
        for path in (ROOT / house).iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert {name for name in named if name.partition("/")[0] in houses} == (folders - generated) | set(houses)


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_promised_error_reason_can_be_sent_and_no_other():
    promised = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()} - {"UNSPECIFIED"}
    assert {row.reason for row in TABLE.values()} | {"INTERNAL"} == promised


def test_the_api_page_has_every_reason_with_its_code():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE)
    sent = {(row.reason, row.code.name) for row in TABLE.values()} | {("INTERNAL", "INTERNAL")}
    assert set(rows) == sent
