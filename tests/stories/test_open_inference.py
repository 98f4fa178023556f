"""Clients that nobody here wrote, unmodified, against a real `taxon serve`.

Each needs a place of its own, named by a variable; without it its tests are skipped:

- `TAXON_TRITONCLIENT`: a Python with `tritonclient[grpc]` installed (it wants protobuf < 7, and its stubs register
  the same names as ours);
- `TAXON_KSERVE`: a Python with `kserve` installed;
- `TAXON_PERF_ANALYZER`: the command of perf_analyzer;
- `TAXON_GRPCURL`: the command of grpcurl, if it is not on the path.
"""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from taxon.bundle.pixels import decode
from taxon.inference import model_config_pb2, open_inference_service_pb2
from tests.commands import serving
from tests.export_text_and_audio import AUDIO_LABELS, TEXT_LABELS, export
from tests.fakes import COLORS, TOY_PIXELS, picture, toy_bundle
from tests.tensor_models import simple, strings
from tests.walkthrough import ROOT, blocks

TRITONCLIENT = os.environ.get("TAXON_TRITONCLIENT", "")
KSERVE = os.environ.get("TAXON_KSERVE", "")
PERF_ANALYZER = os.environ.get("TAXON_PERF_ANALYZER", "")
GRPCURL = os.environ.get("TAXON_GRPCURL", "") or shutil.which("grpcurl") or ""
FLOWS = Path(__file__).parent / "clients" / "tritonclient_flows.py"
# What we have and Triton has not: KServe's answers to loading and unloading, the protocol's own `properties`.
OURS = {
    "inference.ModelMetadataResponse.properties",
    "inference.RepositoryModelLoadResponse.model_name",
    "inference.RepositoryModelLoadResponse.is_loaded",
    "inference.RepositoryModelUnloadResponse.model_name",
    "inference.RepositoryModelUnloadResponse.is_unloaded",
}
needs_tritonclient = pytest.mark.skipif(not TRITONCLIENT, reason="TAXON_TRITONCLIENT is not set")
needs_kserve = pytest.mark.skipif(not KSERVE, reason="TAXON_KSERVE is not set")
needs_perf_analyzer = pytest.mark.skipif(not PERF_ANALYZER, reason="TAXON_PERF_ANALYZER is not set")
needs_grpcurl = pytest.mark.skipif(not GRPCURL, reason="grpcurl is not there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository of every kind of model, and beside it what the flows read."""
    root = tmp_path_factory.mktemp("clients")
    models = root / "models"
    toy_bundle(models)
    simple(models)
    strings(models)
    export(models)
    for name, color in COLORS.items():
        (root / f"{name}.png").write_bytes(picture(color, size=(20, 31)))
    np.save(root / "green.npy", decode((root / "green.png").read_bytes(), TOY_PIXELS))
    return root


@pytest.fixture(scope="module")
def address(folder):
    control = ["--model-control", "explicit", "--log-level", "warning"]
    with serving(folder / "models", *control, stderr=subprocess.DEVNULL) as (_, server):
        yield server


def flow(address, name, folder=".") -> dict:
    words = [TRITONCLIENT, FLOWS, address, name, folder]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


# tritonclient


@needs_tritonclient
def test_health_and_metadata_flow(address):
    said = flow(address, "health_metadata")
    assert said["server"]["name"] == "taxon"
    assert said["statistics"] == ["audio", "colors", "simple", "text"]
    assert said["unknown"][0] == "StatusCode.NOT_FOUND"


@needs_tritonclient
def test_infer_flow(address):
    assert flow(address, "infer") == {"id": "7", "version": "1"}


@needs_tritonclient
@pytest.mark.parametrize("name", ["asynchronous", "keepalive"])
def test_flows_that_check_themselves(address, name):
    flow(address, name)


@needs_tritonclient
def test_reuse_of_request_objects(address):
    assert flow(address, "reuse") == {"sum": 32}


@needs_tritonclient
def test_aio_flow(address):
    assert flow(address, "aio") == {"ids": [str(number) for number in range(10)]}


@needs_tritonclient
def test_stream_flow(address):
    said = flow(address, "stream")
    assert said["ids"] == [str(number) for number in range(20)]
    assert "wrong_model_name" in said["error"]


@needs_tritonclient
def test_string_flow(address, folder):
    said = flow(address, "string", folder)
    assert [list(COLORS)[best] for best in said["best"]] == said["files"]


@needs_tritonclient
def test_explicit_contents_flow(address, folder):
    assert flow(address, "explicit_contents", folder) == {"best": 1}


@needs_tritonclient
def test_model_control_flow(address):
    said = flow(address, "model_control")
    assert ["strings", "UNAVAILABLE"] in said["index"]
    assert ["simple", "READY"] in said["index"]
    assert said["file override"][0] == "StatusCode.UNIMPLEMENTED"


@needs_tritonclient
def test_image_client_flow(address, folder):
    assert flow(address, "image_client", folder)["found"][0] == ["1", "green"]


@needs_tritonclient
def test_the_client_on_the_page_for_users_of_triton(address, folder, tmp_path):
    (code,) = [text for language, text in blocks(ROOT / "docs/coming_from.md") if language == "python"]
    shutil.copy(folder / "red.png", tmp_path / "cat.jpg")
    words = [TRITONCLIENT, "-c", code.replace("localhost:50051", address).replace('"pets"', '"colors"')]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    scores, best = done.stdout.splitlines()
    assert scores.startswith("[[")
    assert best.endswith(":red']]")


@needs_tritonclient
def test_the_same_photo_as_tensor_and_as_picture(address, folder):
    said = flow(address, "same_scores", folder)
    assert said["tensor"] == said["picture"]


@needs_tritonclient
@pytest.mark.parametrize(("model", "labels"), [("text", TEXT_LABELS), ("audio", AUDIO_LABELS)])
def test_text_and_audio_answer_as_torch_did(address, folder, model, labels):
    said = flow(address, "example", folder / "models" / model)
    assert said["difference"] < 1e-4
    assert all(best.split(":")[2] in labels for best in said["best"])


@needs_tritonclient
def test_every_field_of_ours_is_theirs():
    """Number, type and label; extensions that we lack may be missing."""
    facts = flow("", "field_facts")
    theirs, compared = facts["fields"], 0

    def compare(message):
        nonlocal compared
        for field in message.fields:
            name = field.full_name
            if name in OURS:
                assert name not in theirs
                continue
            number, kind, repeated, of = theirs[name]
            assert (field.number, field.type, field.is_repeated) == (number, kind, repeated), name
            ours = (field.message_type or field.enum_type or field).full_name if field.type in (11, 14) else ""
            # Parts of a configuration that are only recognized are one empty message here.
            assert ours in (of, "inference.UnsupportedConfig"), name
            compared += 1
        for nested in message.nested_types:
            if f"{message.full_name}.properties" not in OURS or nested.name != "PropertiesEntry":
                compare(nested)

    for file in (open_inference_service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            if message.name != "UnsupportedConfig":
                compare(message)
    assert compared > 150
    for method in open_inference_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert facts["methods"][method.name] == [method.input_type.full_name, method.output_type.full_name]


# KServe


@needs_kserve
def test_kserve_client(address):
    words = [KSERVE, str(FLOWS.with_name("kserve_flows.py")), address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    twice = [[2 * number for number in range(16)]]
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    assert said["sums"] == [twice, twice]  # typed and raw
    assert said["loaded"] == ["simple", True]


# perf_analyzer


@needs_perf_analyzer
@pytest.mark.parametrize(
    "words",
    [
        "-m colors -b 4",
        "-m simple --concurrency-range 4 -a",
        "-m simple --streaming -a --concurrency-range 2",
        "-m text --shape input_ids:12 --shape attention_mask:12 --input-data zero",
        "-m audio --shape samples:4000 -b 2",
        "-m colors --request-rate-range 50",
    ],
)
def test_perf_analyzer_completes(address, words):
    settled = "--measurement-interval 500 --stability-percentage 999 --max-trials 10"
    done = subprocess.run(
        [*shlex.split(PERF_ANALYZER), "-i", "grpc", "-u", address, *words.split(), *settled.split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "throughput: " in done.stdout
    assert "Inference count: " in done.stdout  # it has read our statistics


# grpcurl


def grpcurl(address, *words) -> dict:
    done = subprocess.run(
        [*shlex.split(GRPCURL), "-plaintext", *words], capture_output=True, text=True, timeout=30, check=True
    )
    return json.loads(done.stdout)


@needs_grpcurl
def test_grpcurl_through_reflection(address):
    service = "inference.GRPCInferenceService"
    listed = subprocess.run(
        [*shlex.split(GRPCURL), "-plaintext", address, "list"], capture_output=True, text=True, timeout=30, check=True
    )
    assert service in listed.stdout.split()
    assert grpcurl(address, address, f"{service}/ServerReady") == {"ready": True}
    request = {
        "model_name": "simple",
        "id": "c",
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "contents": {"int_contents": [1] * 16}}
            for name in ("INPUT0", "INPUT1")
        ],
    }
    answer = grpcurl(address, "-d", json.dumps(request), address, f"{service}/ModelInfer")
    # Versions of grpcurl differ in how they write names.
    answer = {name.replace("_", "").lower(): value for name, value in answer.items()}
    assert (answer["modelname"], answer["id"], len(answer["rawoutputcontents"])) == ("simple", "c", 2)
