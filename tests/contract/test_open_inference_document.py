"""`docs/open_inference.md` names every RPC, only real tests, and the extensions that the server advertises."""

import re
from pathlib import Path

import pytest

from taxon.inference.open_inference_service_pb2 import DESCRIPTOR
from taxon.service.open_inference.service import CONTROL_EXTENSIONS, EXTENSIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "open_inference.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith("|---")
]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_every_rpc_has_a_row():
    service = DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name for method in service.methods} == {row[0] for row in ROWS[1 : 1 + len(service.methods)]}


def test_every_advertised_extension_has_a_row():
    first_cells = " ".join(row[0] for row in ROWS)
    for extension in (*EXTENSIONS, *CONTROL_EXTENSIONS):
        for word in re.findall(r"\w+", extension):
            assert word in first_cells


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] not in ("RPC", "extension")], ids=lambda row: row[0])
def test_rows_name_tests_that_exist(row):
    named = re.findall(r"`(test_\w+)`", row[2])
    assert named
    assert set(named) <= TESTS


def test_tests_named_in_the_text_exist():
    assert set(re.findall(r"`(test_\w+)`", TEXT)) <= TESTS
