"""Messages that no client would send: whatever comes, the answer is a status that says whose fault it is."""

import asyncio

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxon.inference import open_inference_service_pb2 as pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.open_inference.tensors import DATATYPES, framed
from tests.fakes import FEATURE_COUNT, picture, toy_bundle
from tests.tensor_models import free_length, mixing, simple

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a failing example
FAULTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, grpc.StatusCode.DATA_LOSS}
Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor
PICTURE = picture(size=(9, 5))

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["", "colors", "numbers", "simple", "free", "mixing", "../colors", "1", "abc", "image", "INPUT0"]),
    st.sampled_from(["x" * 5000, "\0", "é" * 300, "%s%n", "9" * 400]),
)
DIMENSION = st.one_of(st.integers(-2, 20), st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]), INT64)
PARAMETER = st.one_of(
    st.builds(pb.InferParameter),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=INT64),
    st.builds(pb.InferParameter, string_param=TEXT),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(pb.InferParameter, uint64_param=UINT64),
)
NAMES = ["priority", "timeout", "classification", "sequence_id", "triton_x", "shared_memory_region", "binary_data"]
PARAMETERS = st.dictionaries(st.one_of(st.sampled_from(NAMES), TEXT), PARAMETER, max_size=3)
RAW = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([bytes(4), bytes(64), bytes(192), bytes(16), framed([PICTURE]), framed([b""]), b"\xff" * 8]),
    st.lists(st.one_of(st.binary(max_size=40), st.just(PICTURE)), max_size=3).map(framed),
)
CONTENTS = st.one_of(
    st.none(),
    st.builds(
        pb.InferTensorContents,
        bool_contents=st.lists(st.booleans(), max_size=3),
        int_contents=st.lists(INT32, max_size=17),
        int64_contents=st.lists(INT64, max_size=3),
        uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3),
        uint64_contents=st.lists(UINT64, max_size=3),
        fp32_contents=st.lists(st.floats(width=32), max_size=5),
        fp64_contents=st.lists(st.floats(), max_size=3),
        bytes_contents=st.lists(st.one_of(st.binary(max_size=9), st.just(PICTURE)), max_size=3),
    ),
)
ANY_INPUT = st.builds(
    Input,
    name=TEXT,
    datatype=st.one_of(st.sampled_from([*DATATYPES, "BYTES", "BF16", ""]), TEXT),
    shape=st.lists(DIMENSION, max_size=5),
    parameters=PARAMETERS,
    contents=CONTENTS,
)
ANY_REQUEST = st.builds(
    pb.ModelInferRequest,
    model_name=TEXT,
    model_version=TEXT,
    id=TEXT,
    parameters=PARAMETERS,
    inputs=st.lists(ANY_INPUT, max_size=3),
    outputs=st.lists(st.builds(Output, name=TEXT, parameters=PARAMETERS), max_size=2),
    raw_input_contents=st.lists(RAW, max_size=3),
)


def good_requests() -> list[pb.ModelInferRequest]:
    """One for each model and each way in."""
    image, encoded = Input(name="image", datatype="UINT8", shape=[1, 8, 8, 3]), Input(name="image", datatype="BYTES")
    encoded.shape.append(1)
    features = Input(name="features", datatype="FP32", shape=[1, FEATURE_COUNT])
    features.contents.fp32_contents.extend([0.0] * FEATURE_COUNT)
    pair = [Input(name=name, datatype="INT32", shape=[1, 16]) for name in ("INPUT0", "INPUT1")]
    free, mixed = (Input(name="values", datatype="FP32", shape=[1, 2]) for _ in range(2))
    return [
        pb.ModelInferRequest(model_name="colors", inputs=[image], raw_input_contents=[bytes(192)]),
        pb.ModelInferRequest(model_name="colors", inputs=[encoded], raw_input_contents=[framed([PICTURE])]),
        pb.ModelInferRequest(model_name="numbers", inputs=[features]),
        pb.ModelInferRequest(model_name="simple", inputs=pair, raw_input_contents=[bytes(64), bytes(64)]),
        pb.ModelInferRequest(model_name="free", inputs=[free], raw_input_contents=[bytes(8)]),
        pb.ModelInferRequest(model_name="mixing", inputs=[mixed], raw_input_contents=[bytes(8)]),
    ]


@st.composite
def damaged(draw) -> pb.ModelInferRequest:
    """A good request with a few parts of another one: most get past the first checks."""
    request = draw(st.sampled_from(good_requests()))
    other = draw(ANY_REQUEST)
    for part in draw(st.lists(st.sampled_from(["version", "id", "parameters", "inputs", "outputs", "raw", "shape"]))):
        match part:
            case "version":
                request.model_version = other.model_version
            case "id":
                request.id = other.id
            case "parameters":
                request.MergeFrom(pb.ModelInferRequest(parameters=other.parameters))
            case "inputs":
                request.inputs.extend(other.inputs[:1])
            case "outputs":
                request.outputs.add(name=draw(st.sampled_from(["scores", "OUTPUT0", "total", "centred", ""])))
                request.outputs[-1].MergeFrom(Output(parameters=draw(PARAMETERS)))
            case "raw" if request.raw_input_contents:
                request.raw_input_contents[0] = draw(RAW)
            case "shape":
                request.inputs[0].shape[0] = draw(DIMENSION)
    return request


MODEL_REQUESTS = [pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest, pb.ModelStatisticsRequest]
OTHER_REQUEST = st.one_of(
    *[st.builds(kind, name=TEXT, version=TEXT) for kind in MODEL_REQUESTS],
    st.builds(pb.RepositoryIndexRequest, repository_name=TEXT, ready=st.booleans()),
    st.builds(pb.RepositoryModelLoadRequest, repository_name=TEXT, model_name=TEXT),
)


def attack(target: str, case_count: int) -> None:
    """Sends cases one after the other; then the server must still answer."""
    with grpc.insecure_channel(target) as channel:
        stub = GRPCInferenceServiceStub(channel)

        @settings(max_examples=case_count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.one_of(ANY_REQUEST, damaged(), damaged(), OTHER_REQUEST), st.booleans())
        def send(request, streamed):
            try:
                if not isinstance(request, pb.ModelInferRequest):
                    getattr(stub, type(request).__name__.removesuffix("Request"))(request, timeout=20)
                elif streamed:
                    (response,) = stub.ModelStreamInfer(iter([request]), timeout=20)
                    assert response.error_message != "internal error"
                    assert response.infer_response.id == request.id
                else:
                    stub.ModelInfer(request, timeout=20)
            except grpc.RpcError as error:
                assert error.code() not in FAULTS, f"{error.code()}: {error.details()}"  # noqa: PT017
                assert any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata())  # noqa: PT017

        send()
        for request in good_requests():
            assert stub.ModelInfer(request, timeout=20).raw_output_contents


async def fuzz(serve, root, case_count: int) -> None:
    toy_bundle(root)
    toy_bundle(root, "numbers", features=True)
    simple(root)
    free_length(root)
    mixing(root)
    async with serve(root, "--model-control", "explicit"):
        port = int((root.parent / "port").read_text())
        await asyncio.to_thread(attack, f"127.0.0.1:{port}", case_count)


async def test_a_few_hundred_strange_messages(serve, tmp_path):
    await fuzz(serve, tmp_path / "models", 300)


@pytest.mark.slow
async def test_ten_thousand_strange_messages(serve, tmp_path):
    await fuzz(serve, tmp_path / "models", 10_000)
