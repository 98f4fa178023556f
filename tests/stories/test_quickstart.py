"""The quick start, as it is written."""

import json

import pytest

from tests.walkthrough import ROOT, follow, skip_without

pytestmark = pytest.mark.slow


def test_the_quick_start_works_as_written(tmp_path):
    for needed in ("sklearn", "torch", "matplotlib", "onnxruntime"):
        pytest.importorskip(needed)
    skip_without(50051)
    follow(ROOT / "docs/quickstart.md", tmp_path)
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    right = sum(one["response"]["classifications"][0]["label"] == one["true_label"] for one in answers)
    assert right / len(answers) > 0.9
    assert (tmp_path / "runs/digits/report/index.html").is_file()
