"""`ExplanationService` on a real server: what it says, what it refuses, and that classification goes before it."""

import threading
from io import BytesIO

import grpc
import numpy as np
import pytest
from PIL import Image

from taxon.client import AsyncClient, explain_request
from taxon.explanation import masking
from taxon.service.explanation import lane
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1.classification_service_pb2 import ClassifyRequest
from taxon.v1.explanation_service_pb2 import (
    EXPLANATION_METHOD_ACTIVATION,
    EXPLANATION_METHOD_MASKING,
    ExplainRequest,
)
from taxon.v1.explanation_service_pb2_grpc import ExplanationServiceStub
from tests.fakes import COLORS, picture, toy_bundle
from tests.service.thread_workers import gated
from tests.waiting import until

CORNER = (slice(4, 8), slice(0, 4))


def with_a_red_corner() -> bytes:
    """Black, but for its lower left quarter."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[CORNER] = COLORS["red"]
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def heat(response):
    return np.array(response.map.values).reshape(response.map.row_count, response.map.column_count)


@pytest.fixture(autouse=True)
def _few_masks(monkeypatch):
    monkeypatch.setattr(masking, "MASK_COUNT", 120)


@pytest.fixture
def models(tmp_path):
    toy_bundle(tmp_path / "models")
    return tmp_path / "models"


async def test_a_map_by_masking_points_at_what_speaks_for_the_label(serve, models):
    async with serve(models) as running:
        stub = ExplanationServiceStub(running.channel)
        response = await stub.Explain(ExplainRequest(image=with_a_red_corner(), include_overlay=True))
        again = await stub.Explain(ExplainRequest(image=with_a_red_corner()))
        assert running.counted("taxon_requests_total", method="Explain", model="colors", outcome="OK") == 2
        runs = running.counted("taxon_explanation_runs_total", model="colors", version="1")
        assert running.counted("taxon_explanation_seconds_count", method="masking") == 2
        answer = await running.stub.Classify(ClassifyRequest(image=with_a_red_corner()))
        assert running.counted("taxon_stage_seconds_count", model="colors", version="1", stage="total") == 1
    assert (response.model_name, response.model_version, response.variant) == ("colors", "1", "fp32")
    best = answer.classifications[0]
    assert (response.label, response.class_index, response.score) == (best.label, best.class_index, best.score)
    assert response.label == "red"
    assert response.method == EXPLANATION_METHOD_MASKING
    assert runs == 2 * response.run_count == 2 * (1 + masking.MASK_COUNT)
    values = heat(response)
    assert values.shape == (8, 8)
    assert values.max() == 1.0
    assert values[CORNER].mean() > 4 * values[:4].mean()
    assert not again.overlay_png
    np.testing.assert_allclose(heat(again), values, atol=1e-5)
    with Image.open(BytesIO(response.overlay_png)) as overlay:
        assert (overlay.format, overlay.mode, overlay.size) == ("PNG", "RGB", (224, 224))
        overlay.load()


async def test_a_graph_with_maps_is_run_once_and_explains_any_label(serve, tmp_path):
    toy_bundle(tmp_path / "models", maps=True)
    async with serve(tmp_path / "models") as running:
        async with AsyncClient(running.address) as client:
            best = await client.explain(with_a_red_corner())
            other = await client.explain(with_a_red_corner(), label="blue")
            masked = await client.explain(with_a_red_corner(), method="masking")
        answer = await running.stub.Classify(ClassifyRequest(image=with_a_red_corner()))
        assert len(answer.classifications) == 3
    assert (best.method, best.run_count, best.label) == (EXPLANATION_METHOD_ACTIVATION, 1, "red")
    assert heat(best).tolist() == [[0, 0], [1, 0]]  # quarters of the picture
    assert (other.label, other.class_index) == ("blue", 2)
    assert heat(other).max() == 0  # nothing speaks for it
    assert (masked.method, masked.label) == (EXPLANATION_METHOD_MASKING, "red")


async def test_training_pictures_that_are_alike_come_with_it_the_nearest_first(serve, tmp_path):
    bundle = toy_bundle(tmp_path / "models", maps=True, thumbnails=("1" * 64, "2" * 64, "3" * 64))
    async with serve(tmp_path / "models") as running, AsyncClient(running.address) as client:
        (model,) = await client.list_models()
        mauve = picture((180, 20, 90))
        found = await client.explain(mauve, neighbors=2, label="green")
        masked = await client.explain(mauve, neighbors=9, method="masking")
        none = await client.explain(mauve)
    assert model.thumbnail_count == 3
    assert [[*one.labels] for one in found.neighbors] == [["red"], ["blue"]]
    length = (180**2 + 20**2 + 90**2) ** 0.5
    assert [one.similarity for one in found.neighbors] == pytest.approx([180 / length, 90 / length], abs=1e-5)
    assert found.neighbors[0].thumbnail == bundle.read("thumbnails/0.jpg")
    assert [[*one.labels] for one in masked.neighbors] == [["red"], ["blue"], ["green"]]
    assert not none.neighbors


async def test_thumbnails_that_have_changed_since_the_load_are_not_shown(serve, tmp_path, refused):
    bundle = toy_bundle(tmp_path / "models", maps=True, thumbnails=("1" * 64,))
    async with serve(tmp_path / "models") as running:
        (bundle.folder / "thumbnails/0.jpg").write_bytes(picture(COLORS["blue"], form="JPEG"))
        stub = ExplanationServiceStub(running.channel)
        gone = await refused(stub.Explain(ExplainRequest(image=picture(), max_neighbors=1)))
        assert (await stub.Explain(ExplainRequest(image=picture()))).label == "red"
    assert (gone.code, gone.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image": b""}, "image"),
        ({"max_neighbors": 1}, "max_neighbors"),
        ({"max_neighbors": 17}, "max_neighbors"),
        ({"max_neighbors": -1}, "max_neighbors"),
        ({"label": "violet"}, "label"),
        ({"method": 7}, "method"),
        ({"method": EXPLANATION_METHOD_ACTIVATION}, "method"),
        ({"model_name": "numbers"}, "image"),
    ],
)
async def test_what_cannot_be_explained_names_the_field(serve, models, refused, fields, field):
    toy_bundle(models, "numbers", features=True)
    async with serve(models) as running:
        request = ExplainRequest(**{"model_name": "colors", "image": picture(), **fields})
        gone = await refused(ExplanationServiceStub(running.channel).Explain(request))
    assert (gone.code, gone.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert gone.others["BadRequest"].field_violations[0].field == field


async def test_a_picture_that_is_none_is_refused_as_by_classify(serve, models, refused):
    async with serve(models, "--max-picture-bytes", "4096") as running:
        stub = ExplanationServiceStub(running.channel)
        odd = await refused(stub.Explain(ExplainRequest(image=b"no picture")))
        large = await refused(stub.Explain(ExplainRequest(image=bytes(4097))))
        missing = await refused(stub.Explain(ExplainRequest(image=picture(), model_name="pets")))
    assert [answer.reason for answer in (odd, large, missing)] == [
        "IMAGE_UNDECODABLE",
        "IMAGE_TOO_LARGE",
        "MODEL_NOT_FOUND",
    ]


async def test_several_labels_are_explained_as_one_is(serve, tmp_path):
    toy_bundle(tmp_path / "models", task="multi_label")
    async with serve(tmp_path / "models") as running:
        response = await ExplanationServiceStub(running.channel).Explain(
            ExplainRequest(image=with_a_red_corner(), label="red")
        )
    assert heat(response)[CORNER].mean() > 4 * heat(response)[:4].mean()


async def test_under_load_an_explanation_is_shed_and_classification_answered(serve, models, refused, monkeypatch):
    monkeypatch.setattr(lane, "PATIENCE_S", 0.05)
    gate = threading.Event()
    async with serve(models, "--workers", "1", workers=gated(gate)) as running:
        call = running.stub.Classify(ClassifyRequest(image=picture()))
        await until(lambda: running.server.metrics.registry.get_sample_value("taxon_in_flight_inputs") == 1)
        shed = await refused(ExplanationServiceStub(running.channel).Explain(ExplainRequest(image=picture())))
        gate.set()
        assert (await call).classifications[0].label == "red"
    assert (shed.code, shed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert "RetryInfo" in shed.others


async def test_more_explanations_than_run_at_once_wait_and_then_are_shed(serve, models, refused, monkeypatch):
    monkeypatch.setattr(lane, "MOST_WAITING", 0)
    async with serve(models) as running:
        shed = await refused(ExplanationServiceStub(running.channel).Explain(ExplainRequest(image=picture())))
    assert shed.reason == "QUEUE_FULL"


async def test_where_time_is_short_a_coarser_map_is_better_than_none_but_chance_is_no_map(
    serve, models, refused, monkeypatch
):
    """The server's own ceiling: a caller's deadline would end the call meanwhile on a busy machine."""
    monkeypatch.setattr(masking, "MASK_COUNT", 10**6)
    monkeypatch.setattr(masking, "FEWEST_MASKS", 2)
    async with serve(models, "--max-call-seconds", "0.8") as running:
        stub = ExplanationServiceStub(running.channel)
        response = await stub.Explain(ExplainRequest(image=with_a_red_corner()))
        monkeypatch.setattr(masking, "FEWEST_MASKS", 10**6)
        late = await refused(stub.Explain(ExplainRequest(image=with_a_red_corner())))
    assert 3 <= response.run_count < 10**6
    assert (late.code, late.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")


@pytest.mark.slow
async def test_fronts_and_workers_of_their_own_explain_alike(serve, models):
    async with serve(models, "--fronts", "2", workers=WorkerProcesses) as running:
        response = await ExplanationServiceStub(running.channel).Explain(ExplainRequest(image=with_a_red_corner()))
    assert heat(response)[CORNER].mean() > 4 * heat(response)[:4].mean()


def test_a_client_knows_the_methods():
    with pytest.raises(ValueError, match="activation"):
        explain_request(b"", method="magic")
