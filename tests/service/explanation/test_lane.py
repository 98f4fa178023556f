"""How an explanation waits for an idle worker."""

import asyncio
from types import SimpleNamespace

import pytest

from taxon.service.errors import QueueFullError
from taxon.service.explanation import lane
from taxon.service.explanation.lane import PATIENCE_S, Lane
from taxon.service.telemetry.metrics import Metrics

MODEL = SimpleNamespace(name="colors", version=1, number=7, picture_bytes=0)


class Busy:
    """An executor that refuses whatever it is given."""

    tries = 0

    async def submit(self, *_, **__):
        self.tries += 1
        raise QueueFullError("busy", 1.0, queued_count=0, max_queued_count=0)


async def test_a_busy_server_is_asked_ever_more_seldom(monkeypatch):
    """Each time costs a copy of the picture, on the event loop that also answers others."""
    now, executor = [0.0], Busy()

    async def slept(seconds):
        now[0] += seconds

    monkeypatch.setattr(lane, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": slept}))
    with pytest.raises(QueueFullError, match="busy, and explanations"):
        await Lane(executor, Metrics(), lambda: now[0]).run(MODEL, b"picture", 1e12)
    assert executor.tries < 20
    assert PATIENCE_S <= now[0] < PATIENCE_S + 2 * lane.LOOK_S + 0.1
