"""`GetModel`, `ListModels` and the choice of a version."""

import grpc
import pytest

from taxon.bundle import version_labels
from taxon.bundle.manifest import Thresholds
from taxon.service.api.classification import ClassificationService
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.runtime.description import Description
from taxon.service.runtime.device import CPU
from taxon.service.telemetry.access_log import AccessLog
from taxon.service.telemetry.calls import Calls
from taxon.service.telemetry.metrics import Metrics
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import FEATURE_NAMES, picture, toy_bundle
from tests.tensor_models import simple
from tests.waiting import until


async def test_get_model_tells_what_the_manifest_says(serve, tmp_path):
    toy_bundle(tmp_path / "models", thresholds=Thresholds(unknown=0.25))
    async with serve(tmp_path / "models") as running:
        model = (await running.stub.GetModel(pb.GetModelRequest())).model
    assert (model.name, model.version, model.default_version) == ("colors", "1", True)
    assert model.task == pb.TASK_SINGLE_LABEL
    assert list(model.labels) == ["red", "green", "blue"]
    assert model.input == pb.ModelInput(image=pb.ImageInput(height=8, width=8, channel_count=3))
    assert (model.variant, model.execution_provider) == ("fp32", "CPUExecutionProvider")
    assert (model.unknown_threshold, model.unknown_measure) == (0.25, pb.UNKNOWN_MEASURE_SCORE)
    assert dict(model.metrics) == {"accuracy": 0.5}


async def test_get_model_tells_which_variant_runs_and_what_became_of_the_others(serve, tmp_path):
    toy_bundle(tmp_path / "models", lighter={"fp16": None, "int8": None})
    root = tmp_path / "models"
    toy_bundle(root, "damaged", lighter={"int8": b"\x08\x08"})  # a version of the format, and nothing else
    async with serve(root, "--metrics-port", "0") as running:
        for name, served in (("colors", "int8"), ("damaged", "fp32")):
            model = (await running.stub.GetModel(pb.GetModelRequest(model_name=name))).model
            assert model.variant == served
            (trial,) = [trial for trial in model.variant_trials if not trial.reason]
            assert trial.variant == served
            version = {"model": name, "version": "1"}
            gain = running.counted("taxon_variant_speedup", variant=served, **version)
            assert gain == trial.speedup >= 1.0
            assert running.counted("taxon_model_info", variant=served, execution_provider=CPU, **version) == 1
        assert "ONNX Runtime does not load the graph" in model.variant_trials[1].reason
        assert model.variant_trials[1].speedup == 0.0
        answer = await running.stub.Classify(pb.ClassifyRequest(image=picture(), model_name="colors"))
    assert (answer.variant, answer.classifications[0].label) == ("int8", "red")
    async with serve(root, "--variant", "fp32") as running:
        model = (await running.stub.GetModel(pb.GetModelRequest(model_name="colors"))).model
    assert (model.variant, list(model.variant_trials)) == ("fp32", [])


@pytest.mark.parametrize(
    ("thresholds", "told"),
    [
        (Thresholds(), (0.0, pb.UNKNOWN_MEASURE_UNSPECIFIED)),
        (Thresholds(unknown=0.5, unknown_by="familiarity"), (0.5, pb.UNKNOWN_MEASURE_FAMILIARITY)),
    ],
)
async def test_get_model_tells_what_unknown_is_measured_on(serve, tmp_path, thresholds, told):
    toy_bundle(tmp_path / "models", thresholds=thresholds)
    async with serve(tmp_path / "models") as running:
        model = (await running.stub.GetModel(pb.GetModelRequest())).model
    assert (model.unknown_threshold, model.unknown_measure) == told


@pytest.mark.parametrize(
    ("variant", "served", "threshold", "is_unknown"), [("auto", "int8", 0.8, False), ("fp32", "fp32", 0.9, True)]
)
async def test_the_variant_that_is_served_brings_its_own_threshold(
    serve, tmp_path, variant, served, threshold, is_unknown
):
    """Of a pink whose familiarity lies between the two."""
    thresholds = Thresholds(unknown=0.9, unknown_by="familiarity")
    toy_bundle(tmp_path / "models", thresholds=thresholds, lighter={"int8": None}, lighter_unknown=0.8)
    async with serve(tmp_path / "models", "--variant", variant) as running:
        model = (await running.stub.GetModel(pb.GetModelRequest())).model
        answer = await running.stub.Classify(pb.ClassifyRequest(image=picture((255, 0, 150))))
    assert (model.variant, model.unknown_threshold) == (served, pytest.approx(threshold))
    assert model.unknown_measure == pb.UNKNOWN_MEASURE_FAMILIARITY
    assert (answer.variant, answer.unknown) == (served, is_unknown)
    assert 0.8 < answer.familiarity < 0.9


async def test_list_models_in_pages(serve, tmp_path, refused):
    root = tmp_path / "models"
    for name in ("b", "a", "a", "c"):
        toy_bundle(root, name, features=name == "c")
    async with serve(root) as running:
        listed, token = [], ""
        while True:
            page = await running.stub.ListModels(pb.ListModelsRequest(page_size=3, page_token=token))
            listed += [(model.name, model.version, model.default_version) for model in page.models]
            token = page.next_page_token
            if not token:
                break
        whole = await running.stub.ListModels(pb.ListModelsRequest(page_size=5000))
        negative = await refused(running.stub.ListModels(pb.ListModelsRequest(page_size=-1)))
        nonsense = await refused(running.stub.ListModels(pb.ListModelsRequest(page_token="nonsense")))
    assert listed == [("a", "1", False), ("a", "2", True), ("b", "1", True), ("c", "1", True)]
    assert len(whole.models) == 4
    assert whole.models[3].input.features == pb.FeaturesInput(feature_count=4, feature_names=FEATURE_NAMES)
    for error, field in ((negative, "page_size"), (nonsense, "page_token")):
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert error.others["BadRequest"].field_violations[0].field == field


async def test_pages_fit_a_clients_usual_limit(tmp_path):
    """Five versions of 1.5 MB each; a model that alone is more than a page comes without its labels."""
    manifest = toy_bundle(tmp_path).manifest
    repository = Repository()
    for name, version, count in [*(("many", version, 3000) for version in range(1, 6)), ("more", 1, 8000)]:
        labels = tuple(f"{number:05} {'x' * 500}" for number in range(count))
        described = manifest.model_copy(update={"name": name, "version": version, "labels": labels})
        description = Description(name, version, [], [], {}, 1, [1], "CPUExecutionProvider")
        repository.publish(Model(version, description, described, None, 0))
    service = ClassificationService(None, repository, Calls(AccessLog(0.0), Metrics().count_request), 1.0)
    listed, token = [], ""
    while True:
        page = await service.ListModels(pb.ListModelsRequest(page_token=token), None)
        assert page.ByteSize() < 4 * 2**20
        listed += page.models
        token = page.next_page_token
        if not token:
            break
    whole = await service.GetModel(pb.GetModelRequest(model_name="more"), None)
    assert [(model.name, model.version, len(model.labels)) for model in listed] == [
        *(("many", str(version), 3000) for version in range(1, 6)),
        ("more", "1", 0),
    ]
    assert len(whole.model.labels) == 8000


async def test_a_call_without_a_name_says_that_only_graphs_are_served(serve, tmp_path, refused):
    """They are loaded; NOT_SERVING would let the caller wait for ever."""
    simple(tmp_path / "models")
    async with serve(tmp_path / "models") as running:
        for request in (pb.GetModelRequest(), pb.GetModelRequest(model_name="simple")):
            error = await refused(running.stub.GetModel(request))
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
            assert "by ModelInfer" in error.message
            assert "simple" in error.message


async def test_versions_and_labels_choose_the_version(serve, models, refused):
    toy_bundle(models)
    toy_bundle(models)
    async with serve(models) as running:

        async def answered_by(version: str) -> str:
            request = pb.ClassifyRequest(image=picture(), model_name="colors", model_version=version)
            return (await running.stub.Classify(request)).model_version

        assert await answered_by("") == "3"
        assert await answered_by("1") == "1"
        version_labels.write(models, "colors", "stable", 2)
        version_labels.write(models, "colors", "canary", 7)
        await until(lambda: running.server.repository.default_version("colors") == 2)
        assert await answered_by("stable") == "2"
        assert await answered_by("") == "2"
        canary = running.stub.GetModel(pb.GetModelRequest(model_name="colors", model_version="canary"))
        assert (await refused(canary)).reason == "MODEL_NOT_FOUND"
