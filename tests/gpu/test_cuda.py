"""Bundles on a real CUDA device: loaded, proven, right, released."""

import subprocess
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon.client import Client
from taxon.errors import UnavailableError
from taxon.inference import open_inference_service_pb2 as inference
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.runtime.device import CUDA, choose_device, probed
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.fakes import COLORS, picture, toy_bundle
from tests.faults.served import until
from tests.tensor_models import free_length

pytestmark = pytest.mark.gpu


def used_mb():
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0])


def described(server, name=""):
    return ClassificationServiceStub(server.channel).GetModel(pb.GetModelRequest(model_name=name), timeout=10).model


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_cuda_is_found(asked):
    assert probed(CUDA).count >= 1
    assert choose_device(asked, cuda_graphs="off", engine_cache=None).provider == CUDA


@pytest.mark.parametrize(
    "flags", [("--cuda-graphs", "on"), ("--cuda-graphs", "off"), ("--fronts", "2", "--decoders", "2")]
)
def test_pictures_are_answered_on_cuda(serve, flags):
    server = serve(*flags)
    assert described(server).execution_provider == CUDA  # its goldens have been replayed there
    assert [server.label(picture(color)) for color in COLORS.values()] == list(COLORS)
    with Client(server.address) as client:
        answers = [client.classify(picture(COLORS["blue"], size=(40, 30))) for _ in range(20)]
    assert {answer.classifications[0].label for answer in answers} == {"blue"}


def test_a_bundle_that_answers_differently_is_refused(serve, models):
    toy_bundle(models, "shifted", golden_shift=0.05)
    server = serve()
    listed = ClassificationServiceStub(server.channel).ListModels(pb.ListModelsRequest(), timeout=10)
    assert [model.name for model in listed.models] == ["colors"]


def test_fp16_is_chosen_or_passed_over_by_its_speed_here(serve, tmp_path):
    toy_bundle(tmp_path / "both", lighter={"fp16": None, "int8": None})
    model = described(serve(root=tmp_path / "both"))
    trials = {trial.variant: trial for trial in model.variant_trials}
    assert trials["int8"].reason == "it is made for CPUs"
    assert trials["fp16"].speedup > 0
    assert not trials[model.variant].reason


def test_a_graph_without_a_manifest_runs_on_cuda(serve, tmp_path):
    free_length(tmp_path / "graphs")
    server = serve(root=tmp_path / "graphs")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = inference.ModelInferRequest(model_name="free", raw_input_contents=[values.tobytes()])
    request.inputs.add(name="values", datatype="FP32", shape=values.shape)
    answer = GRPCInferenceServiceStub(server.channel).ModelInfer(request, timeout=10)
    doubled = np.frombuffer(answer.raw_output_contents[1], np.float32).reshape(values.shape)
    np.testing.assert_array_equal(doubled, 2 * values)


def test_unloading_releases_the_devices_memory(serve, tmp_path):
    from benchmarks.bundles import build

    root = tmp_path / "models"
    build(root, "resnet18")
    toy_bundle(root)
    server = serve("--model-control", "explicit", root=root)
    stub = GRPCInferenceServiceStub(server.channel)
    for _ in range(3):
        held = used_mb()
        stub.RepositoryModelUnload(inference.RepositoryModelUnloadRequest(model_name="resnet18"), timeout=30)
        until(lambda held=held: used_mb() < held - 40, 30)  # its weights are 45 MB
        stub.RepositoryModelLoad(inference.RepositoryModelLoadRequest(model_name="resnet18"), timeout=120)
    assert used_mb() < held + 10


def test_callers_are_answered_while_another_model_is_loaded(serve, tmp_path):
    """Its graphs are captured in turns with their batches."""
    from benchmarks.bundles import build

    root = tmp_path / "root"
    toy_bundle(root)
    build(tmp_path / "made", "resnet18")
    server = serve("--watch-seconds", "0.2", root=root)
    (tmp_path / "made" / "resnet18").rename(root / "resnet18")
    waits = []
    with Client(server.address) as client:
        until_s = time.monotonic() + 60
        while len(client.list_models()) < 2 and time.monotonic() < until_s:
            began = time.monotonic()
            answer = client.classify(picture(COLORS["red"]), model="colors")
            assert answer.classifications[0].label == "red"
            waits.append(time.monotonic() - began)
        assert len(client.list_models()) == 2
        assert client.classify(picture(COLORS["blue"]), model="resnet18").classifications
    assert max(waits) < 0.5, sorted(waits)[-5:]  # opening and capturing it take seconds


def test_a_graph_with_maps_explains_there(serve, tmp_path):
    toy_bundle(tmp_path / "mapped", maps=True)  # its maps are proven as its goldens are
    server = serve(root=tmp_path / "mapped")
    assert described(server).execution_provider == CUDA
    with Client(server.address) as client:
        for label in ("red", "blue"):
            explained = client.explain(picture(COLORS["red"]), label=label)
            assert (explained.label, explained.run_count) == (label, 1)
            assert (max(explained.map.values) > 0) == (label == "red")


def test_a_process_that_dies_is_replaced(serve):
    server = serve()
    (worker, *_) = server.workers()
    subprocess.run(["kill", "-9", str(worker)], check=True)

    def replaced():
        """The only process of its device is missed while its successor loads."""
        try:
            return worker not in server.workers() and server.label() == "red"
        except UnavailableError:
            return False

    until(replaced)


def test_a_trained_network_answers_as_torch_does(tmp_path):
    """Real layers, from the picture to the scores: the gate of the export, on the provider that will serve."""
    import torch

    from taxon.bundle.manifest import PixelSpec
    from taxon.training.exporting import graph, parity
    from taxon.training.network import model

    torch.manual_seed(0)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = PixelSpec(resize=256, crop=(224, 224))
    random, files = np.random.default_rng(0), []
    for number in range(16):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        file = BytesIO()
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(file.getvalue())
    for name in ("resnet50", "mobilenet_v3_small"):
        network = model.build(name, 1000).eval()
        path = tmp_path / f"{name}.onnx"
        graph.write_graph(graph.Served(network, mean, std, "single_label").eval(), spec.shape, path)
        with torch.inference_mode():
            expected = torch.softmax(torch.from_numpy(parity.reference_logits(network, files, spec, mean, std)), 1)
        session = parity.open_session(path, CUDA)
        assert session.get_providers()[0] == CUDA
        scores = parity.graph_rows(session, files, spec, (1, 7, 8))
        assert np.abs(scores[: len(files)] - expected.numpy()).max() < parity.TOLERANCES[CUDA]
