"""Bundles that must not be served: each is refused with its reason, the others serve."""

import json
import shutil

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from taxon.bundle import store
from taxon.bundle.picture_limits import Limits
from taxon.service.models.folder import load_bundles
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.session import CPU, Device
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle, toy_graph


def load(root):
    """(names of what is servable, reasons of what is not)"""
    with capture_logs() as events:
        proven = list(
            load_bundles(
                root,
                store.names(root),
                lambda name, version: True,
                lambda bundle: prove(bundle, "fp32", Device(CPU), 1, [1, 2, 4], Limits()),
                lambda name, version, reason: None,
            )
        )
    reasons = [event["reason"] for event in events if event["event"] == "bundle refused"]
    return [(one.manifest.name, one.manifest.version) for one in proven], reasons


def edit(bundle, **changes):
    path = bundle.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def missing_file(bundle):
    (bundle.folder / "model.onnx").unlink()


def wrong_digest(bundle):
    (bundle.folder / "golden" / "0.png").write_bytes(b"something else")


def changed_label(bundle):
    edit(bundle, labels=["red", "green", "violet"])


def changed_pixels(bundle):
    edit(bundle, pixels={"resize": 9, "crop": [8, 8]})


def newer_format(bundle):
    edit(bundle, format_version=2)


def not_json(bundle):
    (bundle.folder / "manifest.json").write_text("{")


def renamed(bundle):
    bundle.folder.rename(bundle.folder.parent / "9")


DAMAGES = [
    (missing_file, "model.onnx is missing"),
    (wrong_digest, "golden/0.png has sha256"),
    (changed_label, "the graph's metadata taxon.labels"),
    (changed_pixels, "the graph's metadata taxon.pixels"),
    (newer_format, "format 2, this release reads up to 1"),
    (not_json, "manifest.json is not JSON"),
    (renamed, "do not rename bundles"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_bundle_is_refused_and_the_others_serve(models, damage, reason):
    damage(toy_bundle(models, "damaged"))
    servable, (actual,) = load(models)
    assert servable == [("colors", 1)]
    assert reason in actual


def test_half_written_bundles_are_not_even_tried(models):
    """One that lies ready to be renamed, whole or torn, and one that somebody copies by hand: the manifest is last."""
    good, _ = load(models)
    folder = models / good[0][0]
    whole = folder / str(good[0][1])
    shutil.copytree(whole, folder / ".staging-whole")
    shutil.copytree(whole, folder / ".staging-torn").joinpath("manifest.json").write_text("{")
    shutil.copytree(whole, folder / "9").joinpath("manifest.json").unlink()
    assert load(models) == (good, [])


def test_goldens_that_answer_differently(models):
    toy_bundle(models, "shifted", golden_shift=1e-3)
    servable, (reason,) = load(models)
    assert servable == [("colors", 1)]
    assert "golden/0.png: in a batch of 1 a score differs by 0.001" in reason


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (b"not a graph", "ONNX Runtime does not load the graph"),
        (toy_graph({}), "the graph's metadata taxon.labels is None"),
    ],
)
def test_graphs_that_are_not_the_manifests(models, graph, reason):
    toy_bundle(models, "odd", graph=graph)
    servable, (actual,) = load(models)
    assert servable == [("colors", 1)]
    assert reason in actual


def test_a_graph_of_another_input(models):
    donor = toy_bundle(models, "donor")
    contract = donor.manifest.contract()
    shutil.rmtree(models / "donor")
    toy_bundle(models, "odd", graph=toy_graph(contract, features=True))
    servable, (reason,) = load(models)
    assert servable == [("colors", 1)]
    assert reason == "the graph's input is float32 'features', it must be uint8 'image'"


def test_every_version_is_tried_latest_first(models):
    toy_bundle(models)
    changed_label(toy_bundle(models))
    servable, reasons = load(models)
    assert servable == [("colors", 2), ("colors", 1)]
    assert len(reasons) == 1


@pytest.mark.parametrize("exists", [True, False])
async def test_with_nothing_servable_the_server_stays_up_and_is_not_ready(serve, tmp_path, refused, exists):
    root = tmp_path / "models"
    if exists:
        changed_label(toy_bundle(root))
    async with serve(root) as running:
        health = await health_pb2_grpc.HealthStub(running.channel).Check(health_pb2.HealthCheckRequest())
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=picture())))
        listed = await running.stub.ListModels(pb.ListModelsRequest())
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
    assert "RetryInfo" in error.others
    assert not listed.models


async def test_an_older_version_answers_when_the_latest_is_refused(serve, models):
    changed_label(toy_bundle(models))
    async with serve(models) as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=picture(COLORS["blue"])))
    assert (reply.model_version, reply.classifications[0].label) == ("1", "blue")
