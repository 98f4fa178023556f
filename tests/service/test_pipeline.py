"""What the executor is handed, and what becomes of calls, told by version. No worker and no wire."""

import asyncio
import time

import numpy as np
import pytest

from taxon.bundle.traffic import Canary, Traffic
from taxon.choice import Choice
from taxon.service.errors import FieldInvalidError
from taxon.service.models.model import model_of
from taxon.service.models.repository import Repository
from taxon.service.models.routing import Routing, Seen
from taxon.service.models.shadowing import Shadowing
from taxon.service.pipeline import Pipeline, checked
from taxon.service.runtime.bundle_proof import describe
from taxon.service.runtime.device import CPU
from taxon.service.scheduling.admission import Permits
from taxon.service.scheduling.board import Board
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.worker_protocol import Loaded
from tests.fakes import FEATURE_COUNT, FakeClock, toy_bundle
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


@pytest.fixture
def of_features(tmp_path):
    manifest = toy_bundle(tmp_path, features=True).manifest
    return model_of(Loaded(1, "", describe(manifest, "fp32", CPU, [1], 8), manifest))


def test_numbers_become_what_the_graph_takes(of_features):
    array = checked([1, 2.5, -3, 1e30], of_features)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.float32([1, 2.5, -3, 1e30]))


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * (FEATURE_COUNT + 1)])
def test_another_number_of_values_is_refused(of_features, values):
    with pytest.raises(FieldInvalidError, match=f"4 values are needed, not {len(values)}") as failure:
        checked(values, of_features)
    assert failure.value.field == "features.values"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 3])
def test_values_that_are_not_finite_are_refused_by_their_position(of_features, wrong, position):
    values = [0.0] * FEATURE_COUNT
    values[position] = wrong
    with pytest.raises(FieldInvalidError, match=rf"number {position} \(from 0\) is not"):
        checked(values, of_features)
