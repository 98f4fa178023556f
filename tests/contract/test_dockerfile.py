"""The Dockerfile needs no daemon to be judged in part: hadolint's opinion, and the sources that services come of."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
BY_NAME = {re.match(r"\S+ AS (\S+)", stage)[1]: stage for stage in STAGES}


def lineage(name):
    """The stage and all that it is built from or copies from."""
    above = re.match(r"(\S+) AS", BY_NAME[name])[1]
    sources = {above, *re.findall(r"--from=(\S+)", BY_NAME[name])} & BY_NAME.keys()
    return {name}.union(*map(lineage, sources))


@pytest.mark.parametrize("target", ["service-cpu", "service-gpu"])
def test_training_code_is_never_copied_on_the_way_to_a_service(target):
    assert lineage(target) >= {"root", "python", f"{target}-build"}
    assert not [name for name in lineage(target) if re.search("^COPY.* training", BY_NAME[name], flags=re.MULTILINE)]


def test_commands_need_no_shell():
    for stage in STAGES:
        for word in re.findall(r"^(?:CMD|ENTRYPOINT|HEALTHCHECK.* CMD) (.)", stage, flags=re.MULTILINE):
            assert word == "["


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not at hand")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
