"""What becomes of calls, told by version. No worker and no wire."""

import asyncio
import time

import pytest

from taxon.bundle.traffic import Canary, Traffic
from taxon.choice import Choice
from taxon.service.models.repository import Repository
from taxon.service.models.routing import Routing, Seen
from taxon.service.models.shadowing import Shadowing
from taxon.service.pipeline import Pipeline
from taxon.service.scheduling.admission import Permits
from taxon.service.scheduling.board import Board
from taxon.service.telemetry.metrics import Metrics
from tests.fakes import FakeClock, toy_bundle
from tests.service.models.known_models import model
from tests.waiting import until


class Hanging:
    """An executor that never answers."""

    def __init__(self):
        self.asked = []

    async def submit(self, number, *_, span):
        self.asked.append(number)
        await asyncio.Event().wait()


@pytest.mark.parametrize(("waited_s", "told"), [(4.0, []), (4.99, ["error"]), (5.1, ["error"])])
async def test_a_caller_who_leaves_when_his_time_is_over_was_not_answered_in_time(tmp_path, waited_s, told):
    """gRPC cancels calls at their deadline: a canary that hangs must not look like callers who changed their minds."""
    repository, executor, metrics, seen = Repository(), Hanging(), Metrics(), []
    clock = FakeClock(time.monotonic())
    manifest = toy_bundle(tmp_path).manifest
    for version in (1, 2):
        repository.publish(model("colors", version, manifest))
    repository.declare("colors", Traffic(labels={"stable": 1}, canary=Canary(version=2, share=1.0)))
    pipeline = Pipeline(
        repository,
        Permits(8, Board(1), 0, lambda: 0.0),
        executor,
        Routing(repository, seen.append),
        Shadowing(repository, executor, metrics),
        metrics,
        clock,
    )
    # Its own limit is far: what is played is gRPC, which knows the deadline better.
    asked = asyncio.create_task(pipeline.classify(b"picture", Choice("colors"), clock.now + 5.0))
    await until(lambda: executor.asked)
    clock.now += waited_s
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert seen == [Seen("colors", 2, outcome, pytest.approx(waited_s)) for outcome in told]
    outcome = told[0] if told else "cancelled"
    labels = {"model": "colors", "version": "2", "part": "canary", "outcome": outcome}
    assert metrics.registry.get_sample_value("taxon_version_requests_total", labels) == 1
