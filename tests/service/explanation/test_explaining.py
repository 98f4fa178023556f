"""What becomes of an explanation if some of its masked copies have no scores."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from taxon.explanation import masking
from taxon.service.errors import NotFiniteError, WorkerEndedError
from taxon.service.explanation.explaining import Explaining
from taxon.service.telemetry.metrics import Metrics

FIRST = SimpleNamespace(picture=np.zeros((8, 8, 3), np.uint8))


class Failing:
    """A lane in which one run fails."""

    def __init__(self, error, at):
        self.error, self.at, self.count = error, at, 0

    async def run(self, *_):
        self.count += 1
        if self.count == self.at:
            raise self.error
        return SimpleNamespace(scores=np.array([self.count % 2], np.float32))


@pytest.mark.parametrize("error", [NotFiniteError("no numbers"), WorkerEndedError("it ended")])
async def test_a_copy_that_fails_costs_the_copies_after_it_only(monkeypatch, error):
    monkeypatch.setattr(masking, "MASK_COUNT", 40)
    monkeypatch.setattr(masking, "FEWEST_MASKS", 10)
    late, early = (Explaining(Path("models"), Failing(error, at), Metrics()) for at in (30, 3))
    evidence = await late._masked(None, FIRST, 0, time.monotonic() + 60)
    assert 10 <= evidence.count < 40
    assert np.isfinite(evidence.map()).all()
    with pytest.raises(type(error)):
        await early._masked(None, FIRST, 0, time.monotonic() + 60)
