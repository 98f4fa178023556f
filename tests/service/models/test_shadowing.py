"""What is copied to a shadow, and what is said of it."""

import asyncio

import numpy as np
import pytest
from structlog.testing import capture_logs

from taxon.bundle.traffic import Shadow, Traffic
from taxon.service.errors import InferenceFailedError, NotFiniteError, QueueFullError, WorkerEndedError
from taxon.service.models import shadowing
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.models.routing import MOST_DEATHS, Routed
from taxon.service.models.shadowing import Shadowing, distance, tensor_distance
from taxon.service.ranking import Ranking
from taxon.service.runtime.description import Description
from taxon.service.runtime.device import CPU
from taxon.service.runtime.packing import pack
from taxon.service.runtime.tensor_types import TensorSpec
from taxon.service.scheduling.batching import Scored
from taxon.service.telemetry.metrics import Metrics
from tests.fakes import FakeClock, toy_bundle

LABELS = ("red", "green", "blue")
OUTPUTS = [TensorSpec("scores", "FP32", (-1, 3))]
FULL = QueueFullError("x", 1.0, queued_count=0, max_queued_count=0)


class Executor:
    """Answers what it is told to, once it is told to."""

    def __init__(self):
        self.asked, self.answer, self.may = [], None, asyncio.Event()
        self.may.set()

    async def submit(self, number, payload, deadline, priority, room_bytes, *, background):
        self.asked.append((number, payload, background))
        await self.may.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return scored(self.answer)


def scored(row, seconds=0.01):
    scores = row if isinstance(row, np.ndarray) else np.array(row, np.float32)
    return Scored(scores, 0.0, 0.5, seconds, 1)


def tensors(*outputs):
    """A graph's answer to one input."""
    (packed,) = pack([np.asarray(output)[np.newaxis] for output in outputs], batched=True)
    return packed


class Opened:
    def __init__(self, manifest):
        self.repository, self.executor, self.metrics = Repository(), Executor(), Metrics()
        self.clock, self.drawn = FakeClock(), 0.0
        ranking = Ranking("single_label", None, None, 3) if manifest else None
        for version in (1, 2):
            description = Description("colors", version, [], OUTPUTS, {"scores": LABELS}, 8, (1,), CPU)
            self.repository.publish(Model(version, description, manifest, ranking, 192))
        self.repository.declare("colors", Traffic(labels={"stable": 1}, shadow=Shadow(version=2, share=0.5)))
        self.shadowing = Shadowing(self.repository, self.executor, self.metrics, lambda: self.drawn, self.clock)

    async def copy(self, part="default", row=(0.7, 0.2, 0.1), payload=b"picture"):
        default = self.repository.find("colors", "1")
        self.shadowing.copy(Routed(default, part), payload, scored(row))
        for _ in range(5):
            await asyncio.sleep(0)

    def counted(self, outcome):
        return self.value("taxon_shadow_inputs_total", outcome=outcome)

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {"model": "colors", "version": "2", **labels}) or 0.0


@pytest.fixture
def opened(tmp_path):
    return Opened(toy_bundle(tmp_path).manifest)


async def test_its_share_of_what_the_default_answered_is_copied(opened):
    opened.executor.answer = (0.6, 0.3, 0.1)
    for drawn, part, copied in ((0.4, "default", 1), (0.5, "default", 0), (0.0, "named", 0), (0.0, "canary", 0)):
        opened.executor.asked.clear()
        opened.drawn = drawn
        await opened.copy(part)
        assert opened.executor.asked == [(2, b"picture", True)] * copied


async def test_nobody_waits_for_it(opened):
    opened.executor.may.clear()
    opened.shadowing.copy(Routed(opened.repository.find("colors", "1"), "default"), b"", scored((1, 0, 0)))
    assert opened.executor.asked == []  # not even begun


async def test_agreement_distance_and_time_are_told(opened):
    opened.executor.answer = (0.6, 0.3, 0.1)
    await opened.copy()
    opened.executor.answer = (0.2, 0.7, 0.1)
    await opened.copy()
    assert (opened.counted("same"), opened.counted("other")) == (1, 1)
    assert opened.value("taxon_shadow_score_distance_sum") == pytest.approx(0.1 + 0.5)
    assert opened.value("taxon_shadow_seconds_sum", by="shadow") == pytest.approx(0.02)
    opened.clock.now += shadowing.SUMMARY_S + 1
    with capture_logs() as events:
        await opened.copy()
    (event,) = events
    assert event["event"] == "shadow compared"
    assert (event["compared"], event["agreement"], event["mean_distance"]) == (2, 0.5, 0.3)
    assert (event["largest_distance"], event["mean_ms"], event["default_mean_ms"]) == (0.5, 10.0, 10.0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(FULL, "shed"), (NotFiniteError("x"), "nan"), (InferenceFailedError("x"), "error"), (RuntimeError(), "error")],
)
async def test_what_fails_is_counted(opened, error, outcome):
    opened.executor.answer = error
    await opened.copy()
    assert opened.counted(outcome) == 1
    assert opened.counted("same") == 0


async def test_a_shadow_that_ends_workers_gets_nothing_more(opened):
    opened.executor.answer = WorkerEndedError("x")
    with capture_logs() as events:
        for _ in range(MOST_DEATHS + 2):
            await opened.copy()
    assert len(opened.executor.asked) == opened.counted("fatal") == MOST_DEATHS
    assert [event["event"] for event in events if event["log_level"] == "error"] == [
        "shadow ended workers, nothing more is copied"
    ]


async def test_only_a_few_are_kept_in_memory(opened):
    opened.executor.may.clear()
    for _ in range(shadowing.MOST_AT_ONCE + 3):
        await opened.copy()
    assert len(opened.executor.asked) == shadowing.MOST_AT_ONCE
    assert opened.counted("shed") == 3
    opened.executor.answer = (1, 0, 0)
    opened.executor.may.set()
    await opened.copy()
    await opened.copy()
    assert opened.counted("same") >= shadowing.MOST_AT_ONCE


async def test_while_it_is_not_served_nothing_is_copied(opened):
    opened.repository.retire(opened.repository.find("colors", "2"), "lost")
    await opened.copy()
    assert opened.executor.asked == []


@pytest.mark.parametrize(("shape", "copied"), [((8, 8, 3), 1), ((8, 9, 3), 0)])
async def test_pixels_are_copied_to_who_takes_as_many(opened, shape, copied):
    assert opened.repository.find("colors", "2").manifest.input.shape == (8, 8, 3)
    opened.executor.answer = (0.6, 0.3, 0.1)
    await opened.copy(payload=np.zeros(shape, np.uint8))
    assert (len(opened.executor.asked), opened.counted("unfit")) == (copied, 1 - copied)


@pytest.fixture
def graphs():
    """Two graphs without manifests."""
    return Opened(None)


async def test_graphs_are_compared_by_all_their_outputs(graphs):
    usual = tensors(np.float32([3, 1, 2]), np.int32([[7, 5]]))
    for answer in (usual, tensors(np.float32([3.5, 1, 2]), np.int32([[7, 5]])), tensors(*np.float32([[1, 2], [0, 0]]))):
        graphs.executor.answer = answer
        await graphs.copy(payload=tensors(1.0), row=usual)
    assert (graphs.counted("same"), graphs.counted("other")) == (2, 1)
    assert graphs.value("taxon_shadow_score_distance_sum") == 0.5
    graphs.executor.answer = tensors(np.float32([np.nan, 1, 2]), np.int32([[7, 5]]))
    await graphs.copy(payload=tensors(1.0), row=usual)
    assert (graphs.counted("nan"), graphs.value("taxon_shadow_score_distance_sum")) == (1, 0.5)


async def test_a_bundle_is_no_shadow_of_a_graph(graphs, opened):
    graphs.repository.publish(opened.repository.find("colors", "2"))
    await graphs.copy(payload=tensors(1.0), row=tensors(1.0))
    assert (graphs.executor.asked, graphs.counted("unfit")) == ([], 1)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("mine", "theirs", "same", "apart"),
    [
        ([1.0, 2.0], [0.0, 5.0], True, 3.0),
        ([2.0, 1.0], [1.0, 2.0], False, 1.0),
        ([[2.0, 1.0], [0.0, 1.0]], [[2.0, 1.0], [1.0, 0.0]], False, 1.0),
        (2.5, 2.0, True, 0.5),
        ([], [], True, 0.0),
        ([1.0], [1.0, 2.0], False, 0.0),
        ([NAN, INFINITE], [NAN, INFINITE], True, 0.0),
        ([NAN, 1.0], [NAN, 2.0], True, 1.0),
        ([True, False], [False, True], False, 1.0),
        (np.uint8([0, 1]), np.uint8([1, 2]), True, 1.0),
    ],
)
def test_tensors_are_compared_row_by_row(mine, theirs, same, apart):
    assert tensor_distance(tensors(mine), tensors(theirs)) == (same, apart)


@pytest.mark.parametrize("other", [1.0, INFINITE])
def test_what_is_no_number_on_one_side_is_no_distance(other):
    assert np.isnan(tensor_distance(tensors([NAN]), tensors([other]))[1])


def test_labels_are_compared_by_their_names():
    mine, theirs = np.array([0.1, 0.9], np.float32), np.array([0.8, 0.2], np.float32)
    assert distance(mine, ("a", "b"), theirs, ("a", "b")) == pytest.approx(0.7)
    assert distance(mine, ("a", "b"), theirs, ("b", "a")) == pytest.approx(0.1)
    assert distance(mine, ("a", "b"), theirs, ("a", "c")) == pytest.approx(0.9)
