"""The quick start, as it is written."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.walkthrough import ROOT, script

pytestmark = pytest.mark.slow
PORT = 50051


def test_the_quick_start_works_as_written(tmp_path):
    for needed in ("sklearn", "torch", "matplotlib", "onnxruntime"):
        pytest.importorskip(needed)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"something listens on port {PORT}, which the page uses")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAXON_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    words = ["bash", "-c", script(ROOT / "docs/quickstart.md")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    right = sum(one["response"]["classifications"][0]["label"] == one["true_label"] for one in answers)
    assert right / len(answers) > 0.9
    assert (tmp_path / "runs/digits/report/index.html").is_file()
