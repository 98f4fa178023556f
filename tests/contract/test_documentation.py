"""What the documents say must be what the commands do.

`TAXON_WRITE_DOCS=1 make test` rewrites `docs/configuration.md` from the commands themselves.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

import pytest

from taxon.cli import COMMANDS, main
from taxon.service.api.statuses import TABLE
from taxon.v1.classification_service_pb2 import ErrorReason

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs/configuration.md"
HEAD = """# Configuration

What `--help` says, command by command; a test keeps it so. Every option of `taxon serve` is also a variable:
`--max-queued-requests` is `TAXON_MAX_QUEUED_REQUESTS`. A flag wins over a variable, a variable over the default.
"""


def help_of(command: str) -> str:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "argv", ["taxon"])
        with pytest.raises(SystemExit):
            main([command, "--help"])
    return printed.getvalue().strip()


def rendered() -> str:
    sections = [f"## taxon {name}\n\n```\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join([HEAD, *sections])


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse draws usage differently elsewhere")
def test_configuration_is_what_help_says():
    if os.environ.get("TAXON_WRITE_DOCS"):
        CONFIGURATION.write_text(rendered())
    assert CONFIGURATION.read_text() == rendered()


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
