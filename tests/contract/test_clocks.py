"""Who reads the time of day, which jumps: only what has to do with dates. All else counts on clocks that never do."""

import ast
from pathlib import Path

import taxon

PACKAGE = Path(taxon.__file__).parent
READERS = {
    "bundle/atomic_files.py": "whether a file that a writer left is old, by the time of the file",
    "bundle/default_history.py": "when a default was changed, to be read by people",
    "bundle/store.py": "whether a folder that a publisher left is old, by the time of the folder; locks decide",
    "bundle/traffic.py": "when a canary was declared, compared for equality only",
    "service/access/callers.py": "whether a key has expired, which is a date",
    "service/access/entry.py": "a warning of a certificate that has expired, which is a date",
    "service/access/keys_main.py": "when a key was made and when it will expire",
    "service/models/control.py": "whether a file was written so recently that its time may not tell it from the next",
    "service/telemetry/statistics.py": "when a model was asked last, which the protocol wants as a time of day",
    "service/telemetry/tracing.py": "when a span began and ended, which the protocol wants as times of day",
}
"""Of what the service runs, with what they want to know."""
OF_DAY = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def reads_the_time_of_day(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {f"{node.module}.{name.name}" for node in imports for name in node.names}
    return bool((named | imported) & OF_DAY)


def test_only_these_read_the_time_of_day():
    files = [path for room in ("bundle", "service") for path in (PACKAGE / room).rglob("*.py")]
    assert len(files) > 50
    found = {path.relative_to(PACKAGE).as_posix() for path in files if reads_the_time_of_day(path)}
    assert found == set(READERS)
