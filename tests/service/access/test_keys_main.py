"""The command `taxon keys` and its file."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from taxon.service.access import callers
from taxon.service.access.keys_main import main
from taxon.service.errors import StartError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def run(file, command, *words):
    return main([command, *words, "--keys", str(file)])


def test_add_list_revoke(file, capsys):
    assert run(file, "add", "app", "--groups", "classify,inference", "--max-calls-per-second", "2.5") == 0
    said = capsys.readouterr()
    key = said.out.strip()
    assert key.startswith("taxon_")
    assert len(key) > 64
    assert "only time" in said.err
    assert run(file, "add", "ops", "--groups", "admin", "--identity", "dns:ops.example", "--expires-in-days", "30") == 0
    assert capsys.readouterr().out == ""
    content = file.read_text()
    assert key not in content
    assert key.rpartition("_")[2] not in content
    assert sha256(key.encode()).hexdigest() in content

    assert run(file, "list") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["name"], first["groups"], first["max_calls_per_second"]) == ("app", ["classify", "inference"], 2.5)
    assert "key_sha256" not in first
    lasts = datetime.fromisoformat(second["expires"]) - datetime.now(UTC)
    assert lasts.days in (29, 30)
    assert second["identity"] == "dns:ops.example"

    assert run(file, "revoke", "app") == 0
    assert [caller.name for caller in callers.read(file).callers] == ["ops"]


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False)])
def test_a_key_in_a_file_that_others_may_read_is_warned_of(file, tmp_path, monkeypatch, capsys, mode, warned):
    """As `taxon keys add … > app.key` leaves it under the usual umask."""
    kept = tmp_path / "app.key"
    kept.touch(mode)
    kept.chmod(mode)
    with kept.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(file, "add", "app", "--groups", "classify") == 0
    assert kept.read_text().startswith("taxon_")
    assert ("chmod 600" in capsys.readouterr().err) == warned


def test_two_keys_are_never_the_same(file, capsys):
    for name in "ab":
        run(file, "add", name, "--groups", "classify")
    first, second = capsys.readouterr().out.split()
    assert first != second


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["add", "app", "--groups", "classify"], "has a caller 'app' already"),
        (["add", "other", "--groups", "classify", "--identity", "dns:a"], "identity dns:a already"),
        (["add", "a/b", "--groups", "classify"], "String should match pattern"),
        (["add", "", "--groups", "classify"], "String should match pattern"),
        (["add", "x", "--groups", "classify", "--identity", "a.example"], "String should match pattern"),
        (["revoke", "none"], "has no caller 'none'"),
    ],
)
def test_what_cannot_be_done_is_said(file, capsys, words, fault):
    run(file, "add", "app", "--groups", "classify")
    run(file, "add", "by-certificate", "--groups", "classify", "--identity", "dns:a")
    before = file.read_bytes()
    capsys.readouterr()
    assert run(file, *words) == 2
    assert fault in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["--groups", "everything"],
        ["--groups", ""],
        ["--groups", "classify", "--max-concurrent-calls", "0"],
        ["--groups", "classify", "--max-calls-per-second", "0"],
        ["--groups", "classify", "--max-calls-per-second", "inf"],
        ["--groups", "classify", "--expires-in-days", "-1"],
    ],
)
def test_wrong_options(file, words):
    with pytest.raises(SystemExit):
        run(file, "add", "app", *words)
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file"),
        ("", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"format_version": 2}', "format_version"),
        ('{"callers": [], "more": 1}', "more: Extra inputs"),
        (
            '{"callers": [{"name": "a", "groups": [], "identity": "dns:a", "created": "2026-11-26T00:00:00Z"}]}',
            "groups",
        ),
        ('{"callers": [{"name": "a", "groups": ["admin"], "created": "2026-11-26T00:00:00Z"}]}', "either key_id"),
        ('{"callers": [{"name": "a", "groups": ["root"], "identity": "dns:a", "created": 0}]}', "groups: 0"),
    ],
)
def test_a_file_that_is_none_is_not_used(file, content, fault):
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartError) as failure:
        callers.read(file)
    assert str(failure.value).startswith(f"--keys {file} ")
    assert fault in str(failure.value)


def test_two_of_the_same_kind_are_refused(file):
    one = {"name": "a", "groups": ["classify"], "identity": "dns:a", "created": "2026-11-26T00:00:00Z"}
    for other, what in (({"identity": "dns:b"}, "name"), ({"name": "b"}, "identity")):
        file.write_text(json.dumps({"callers": [one, one | other]}))
        with pytest.raises(StartError, match=f"the same {what}"):
            callers.read(file)


def _add(file: Path, name: str) -> None:
    main(["add", name, "--keys", str(file), "--groups", "classify"])


def test_who_adds_at_the_same_time_loses_nothing(file):
    with ThreadPoolExecutor(4) as threads:
        for number in range(24):
            threads.submit(_add, file, f"caller-{number}")
    assert len(callers.read(file).callers) == 24
