"""What is written down."""

import json

from taxon.tuning.evidence import Asked, conclusion, configuration, write
from taxon.tuning.search import Found, Measured
from taxon.tuning.settings import Tried

ASKED = Asked("pets/3", "64 pictures of 115 kB", 50.0, 0.9, ("--device", "cpu"), 2, 3.0)
BEST = Tried(workers=1, variant="int8")


def found(chosen=BEST, rate=210.0):
    measured = [
        Measured(Tried(), "final", 180.0, 220.0, 48.0, "fp32"),
        Measured(chosen, "final", 209.0, 240.0, 47.0, "int8"),
        Measured(chosen, "final", 211.0, 242.0, 49.0, "int8"),
    ]
    return Found(chosen, Tried(), 1.17 if chosen != Tried() else 1.0, rate, measured)


def variables(text):
    return dict(line.split("=") for line in text.splitlines() if line and not line.startswith("#"))


def test_the_configuration_says_what_it_is_for():
    written = configuration(ASKED, found())
    assert variables(written) == {"TAXON_WORKERS": "1", "TAXON_VARIANT": "int8"}
    assert "210 calls/s with 99 % of the calls within 50 ms, 1.17 times what the defaults answer" in written
    assert "# Measured with, and to be used with: --device cpu" in written


def test_the_defaults_may_be_the_best():
    written = configuration(ASKED, found(chosen=Tried()))
    assert variables(written) == {}
    assert "there is nothing to set" in written
    assert "times what" not in written


def test_an_objective_that_nothing_keeps():
    assert conclusion(ASKED, found(Tried(), 0.0)).startswith("nothing that was tried answers 99 %")


def test_the_evidence_lies_beside_it(tmp_path):
    write(tmp_path / "new", ASKED, found())
    told = json.loads((tmp_path / "new/evidence.json").read_text())
    assert (told["chosen"], told["predicted_calls_per_s"]) == ({"workers": "1", "variant": "int8"}, 210.0)
    first = {"tried": {}, "stage": "final", "rate": 180.0, "saturated": 220.0, "p99_ms": 48.0, "variant": "fp32"}
    assert told["measured"][0] == first
    assert told["conditions"]["taxon"]
    text = (tmp_path / "new/evidence.md").read_text()
    assert "| final | `--workers 1 --variant int8` | int8 | 2 | 210.0 | 48.0 | 241.0 |" in text
    assert "Variants below an accuracy of 0.9 were left out." in text
