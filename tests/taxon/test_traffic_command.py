import json

import pytest

from taxon import cli
from taxon.bundle import traffic, version_labels
from tests.fakes import toy_bundle


@pytest.fixture
def root(tmp_path):
    for _ in range(3):
        toy_bundle(tmp_path)
    version_labels.write(tmp_path, "colors", "stable", 1)
    return tmp_path


def run(root, verb, *words):
    return cli.main(["traffic", verb, "colors", *words, "--models", str(root)])


def test_a_canary_and_a_shadow_are_declared_and_end(root, capsys):
    assert run(root, "canary", "2", "--share", "0.05", "--min-calls", "50", "--max-latency-ratio", "1.5") == 0
    assert run(root, "shadow", "3", "--share", "1") == 0
    declared = traffic.read(root, "colors")
    assert (declared.canary.version, declared.canary.share) == (2, 0.05)
    assert declared.canary.bounds == traffic.Bounds(min_calls=50, max_latency_ratio=1.5)
    assert (declared.shadow.version, declared.shadow.share) == (3, 1.0)
    capsys.readouterr()
    assert run(root, "show") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((root / "colors" / "traffic.json").read_text())
    assert run(root, "clear", "--shadow") == 0
    assert traffic.read(root, "colors") == declared.changed(shadow=None)
    assert run(root, "clear") == 0
    assert traffic.read(root, "colors").versions == {1}


def test_said_again_it_is_declared_anew(root):
    """So services try it again."""
    declared = []
    for _ in range(2):
        assert run(root, "canary", "2", "--share", "0.05") == 0
        declared.append(traffic.read(root, "colors").canary)
    assert declared[0] != declared[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("canary", "1", "--share", "0.1"), "version 1 is the default already"),
        (("shadow", "9", "--share", "0.1"), "manifest.json cannot be read"),
        (("canary", "2", "--share", "0.1", "--window", "20"), "min_calls 100 are more than the window of 20"),
    ],
)
def test_what_cannot_be_is_refused(root, capsys, words, why):
    before = traffic.read(root, "colors")
    assert run(root, *words) == 2
    assert why in capsys.readouterr().err
    assert traffic.read(root, "colors") == before


@pytest.mark.parametrize("share", ["0", "1.1", "nan", "-0.1"])
def test_a_share_that_is_none_is_refused(root, capsys, share):
    with pytest.raises(SystemExit):
        run(root, "canary", "2", "--share", share)
    assert "above 0, at most 1" in capsys.readouterr().err


def test_a_model_that_is_not_there(root, capsys):
    assert cli.main(["traffic", "show", "birds", "--models", str(root)]) == 2
    assert "has no model birds" in capsys.readouterr().err
    assert not (root / "birds").exists()
