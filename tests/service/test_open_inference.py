"""The Open Inference Protocol as a caller sees it: a real server, a real channel, our own stubs."""

import asyncio

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.tensors import framed
from taxon.bundle.pixels import decode
from taxon.inference import open_inference_service_pb2 as pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import classification_service_pb2 as taxon_pb
from tests.fakes import COLORS, FEATURE_COUNT, TOY_PIXELS, picture, toy_bundle
from tests.tensor_models import free_length, mixing, simple, strings

Code = grpc.StatusCode
PICTURES = [picture(color, size=(20, 31)) for color in COLORS.values()]
CONTROL = ("--model-control", "explicit")


def stub_of(running) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(running.channel)


def sent(name: str, datatype: str, shape, **parameters) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, parameters=parameters)


def encoded(*pictures: bytes, model="colors", **fields) -> pb.ModelInferRequest:
    image = sent("image", "BYTES", [len(pictures)])
    return pb.ModelInferRequest(model_name=model, inputs=[image], raw_input_contents=[framed(pictures)], **fields)


def decoded(*pictures: bytes, model="colors", **fields) -> pb.ModelInferRequest:
    arrays = np.stack([decode(one, TOY_PIXELS) for one in pictures])
    image = sent("image", "UINT8", arrays.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[image], raw_input_contents=[arrays.tobytes()], **fields)


def pair(a: np.ndarray, b: np.ndarray, model="simple", **fields) -> pb.ModelInferRequest:
    inputs = [sent("INPUT0", "INT32", a.shape), sent("INPUT1", "INT32", b.shape)]
    raw = [a.astype("<i4").tobytes(), b.astype("<i4").tobytes()]
    return pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **fields)


def array_of(response: pb.ModelInferResponse, index: int = 0) -> np.ndarray:
    dtype = {"FP32": "<f4", "INT32": "<i4", "INT8": "i1"}[response.outputs[index].datatype]
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(response.outputs[index].shape)


def elements_of(response: pb.ModelInferResponse, index: int = 0) -> list[str]:
    raw, elements = response.raw_output_contents[index], []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        elements.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return elements


def classes(name: str, count: int) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    parameter = pb.InferParameter(int64_param=count)
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters={"classification": parameter})


# Health and metadata


async def test_health_and_metadata(serve, models):
    async with serve(models) as running:
        stub = stub_of(running)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        server = await stub.ServerMetadata(pb.ServerMetadataRequest())
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="colors"))).ready
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="colors", version="1"))).ready
        model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="colors"))
        health = await health_pb2_grpc.HealthStub(running.channel).Check(
            health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        )
    assert server.name == "taxon"
    assert {"classification", "statistics", "model_configuration"} <= set(server.extensions)
    assert not {"sequence", "trace", "system_shared_memory", "model_repository"} & set(server.extensions)
    assert (model.name, list(model.versions), model.platform) == ("colors", ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("image", "UINT8", [-1, 8, 8, 3])]
    assert [(one.name, one.datatype, list(one.shape)) for one in model.outputs] == [("scores", "FP32", [-1, 3])]
    assert model.properties["execution_provider"] == "CPUExecutionProvider"
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_nothing_servable_is_live_and_not_ready(serve, tmp_path):
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_not_ready_while_draining_and_still_answering(serve, models):
    async with serve(models, "--drain-delay-seconds", "2") as running:
        stub = stub_of(running)
        running.server.stop()
        while (await stub.ServerReady(pb.ServerReadyRequest())).ready:
            pass
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).outputs


async def test_model_config(serve, models):
    async with serve(models) as running:
        config = (await stub_of(running).ModelConfig(pb.ModelConfigRequest(name="colors"))).config
    assert (config.name, config.platform, config.backend) == ("colors", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size > 1
    (image,), (scores,) = config.input, config.output
    assert (image.name, image.data_type, image.format, list(image.dims)) == ("image", 2, 1, [8, 8, 3])
    assert (scores.name, scores.data_type, list(scores.dims), scores.label_filename) == (
        "scores",
        11,
        [3],
        "labels.txt",
    )
    assert list(config.dynamic_batching.preferred_batch_size) == [1, 2, 4, 8]
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override


# Inference


async def test_every_way_in_gives_the_same_scores(serve, models):
    """To the bit: Classify, BYTES raw and typed, UINT8."""
    async with serve(models) as running:
        stub = stub_of(running)
        typed = pb.ModelInferRequest(model_name="colors", inputs=[sent("image", "BYTES", [3])])
        typed.inputs[0].contents.bytes_contents.extend(PICTURES)
        answers = [array_of(await stub.ModelInfer(way)) for way in (encoded(*PICTURES), decoded(*PICTURES), typed)]
        replies = [await running.stub.Classify(taxon_pb.ClassifyRequest(image=one)) for one in PICTURES]
    expected = [{found.class_index: found.score for found in reply.classifications} for reply in replies]
    for scores in answers:
        assert scores.tolist() == [[by_class[index] for index in range(3)] for by_class in expected]


async def test_typed_integers_are_read_as_the_raw_ones(serve, models):
    array = decode(PICTURES[1], TOY_PIXELS)
    typed = pb.ModelInferRequest(model_name="colors", inputs=[sent("image", "UINT8", [1, 8, 8, 3])])
    typed.inputs[0].contents.uint_contents.extend(array.ravel().tolist())
    async with serve(models) as running:
        stub = stub_of(running)
        assert (
            array_of(await stub.ModelInfer(typed)).tolist()
            == array_of(await stub.ModelInfer(decoded(PICTURES[1]))).tolist()
        )


async def test_features(serve, tmp_path):
    toy_bundle(tmp_path / "models", features=True)
    request = pb.ModelInferRequest(model_name="colors", inputs=[sent("features", "FP32", [2, FEATURE_COUNT])])
    request.inputs[0].contents.fp32_contents.extend([3, 0, 0, 0, 0, 0, 3, 0])
    async with serve(tmp_path / "models") as running:
        response = await stub_of(running).ModelInfer(request)
    assert array_of(response).argmax(axis=1).tolist() == [0, 2]


async def test_id_and_version_come_back(serve, models):
    toy_bundle(models)
    async with serve(models) as running:
        stub = stub_of(running)
        latest = await stub.ModelInfer(encoded(PICTURES[0], id="é 7"))
        first = await stub.ModelInfer(encoded(PICTURES[0], model_version="1"))
    assert (latest.model_name, latest.model_version, latest.id) == ("colors", "2", "é 7")
    assert (first.model_version, first.id) == ("1", "")


async def test_a_label_names_a_version(serve, models):
    toy_bundle(models)
    (models / "colors" / "labels").mkdir()
    (models / "colors" / "labels" / "stable").write_text("1")
    async with serve(models) as running:
        stub = stub_of(running)
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).model_version == "1"
        assert (await stub.ModelInfer(encoded(PICTURES[0], model_version="stable"))).model_version == "1"


async def test_classification_extension(serve, models):
    async with serve(models) as running:
        response = await stub_of(running).ModelInfer(encoded(*PICTURES, outputs=[classes("scores", 2)]))
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [3, 2])
    found = [element.split(":") for element in elements_of(response)]
    assert [(index, label) for _, index, label in found[::2]] == [("0", "red"), ("1", "green"), ("2", "blue")]
    assert all(len(value.split(".")[1]) == 6 for value, _, _ in found)


async def test_a_batch_beyond_the_largest_bucket_is_answered(serve, models):
    async with serve(models) as running:
        response = await stub_of(running).ModelInfer(encoded(*PICTURES * 40))
    assert list(response.outputs[0].shape) == [120, 3]


async def test_one_bad_picture_fails_the_request(serve, models, refused):
    """A tensor has no place for a partial answer; BatchClassify has."""
    async with serve(models) as running:
        error = await refused(stub_of(running).ModelInfer(encoded(PICTURES[0], b"not a picture")))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "IMAGE_UNDECODABLE")


# Refusals


def with_parameters(**parameters) -> pb.ModelInferRequest:
    return encoded(PICTURES[0], parameters={name: pb.InferParameter(**value) for name, value in parameters.items()})


REFUSED = {
    "no model": (encoded(PICTURES[0], model=""), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "unknown model": (encoded(PICTURES[0], model="birds"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "a path": (encoded(PICTURES[0], model="../colors"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "a name of a megabyte": (encoded(PICTURES[0], model="é" * 1_000_000), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "unknown version": (encoded(PICTURES[0], model_version="9"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "version abc": (encoded(PICTURES[0], model_version="abc"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version 0": (encoded(PICTURES[0], model_version="0"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version -1": (encoded(PICTURES[0], model_version="-1"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version of a megabyte": (encoded(PICTURES[0], model_version="1" * 10**6), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "batch over the limit": (encoded(*PICTURES[:1] * 257), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "unknown output": (
        encoded(PICTURES[0], outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")]),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "output twice": (
        encoded(PICTURES[0], outputs=[classes("scores", 1), classes("scores", 2)]),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "no classes": (encoded(PICTURES[0], outputs=[classes("scores", 0)]), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "fewer classes": (encoded(PICTURES[0], outputs=[classes("scores", -1)]), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "classes as text": (
        encoded(
            PICTURES[0],
            outputs=[
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name="scores", parameters={"classification": pb.InferParameter(string_param="2")}
                )
            ],
        ),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "shared memory": (
        pb.ModelInferRequest(
            model_name="colors",
            inputs=[sent("image", "BYTES", [1], shared_memory_region=pb.InferParameter(string_param="r"))],
        ),
        Code.UNIMPLEMENTED,
        "UNSUPPORTED",
    ),
    "negative priority": (with_parameters(priority={"int64_param": -1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "priority as text": (with_parameters(priority={"string_param": "1"}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "negative timeout": (with_parameters(timeout={"int64_param": -1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "reserved parameter": (with_parameters(triton_x={"int64_param": 1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "a microsecond": (with_parameters(timeout={"int64_param": 1}), Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"),
}


@pytest.fixture(scope="module")
def shared_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared") / "models"
    toy_bundle(root)
    return root


@pytest.mark.parametrize(("request_", "code", "reason"), REFUSED.values(), ids=REFUSED)
async def test_refuses(serve, shared_models, refused, request_, code, reason):
    async with serve(shared_models) as running:
        error = await refused(stub_of(running).ModelInfer(request_))
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_features_must_be_finite(serve, tmp_path, refused, value):
    toy_bundle(tmp_path / "models", features=True)
    request = pb.ModelInferRequest(model_name="colors", inputs=[sent("features", "FP32", [1, FEATURE_COUNT])])
    request.raw_input_contents.append(np.full(FEATURE_COUNT, value, "<f4").tobytes())
    async with serve(tmp_path / "models") as running:
        error = await refused(stub_of(running).ModelInfer(request))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_full_queue_is_unavailable_here(serve, models, refused):
    """RESOURCE_EXHAUSTED in our own API; the clients of this protocol retry on UNAVAILABLE."""
    async with serve(models, "--max-queued-requests", "1") as running:
        error = await refused(stub_of(running).ModelInfer(encoded(*PICTURES)))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "QUEUE_FULL")
    assert "RetryInfo" in error.others


async def test_parameters_without_meaning_are_ignored(serve, models):
    request = with_parameters(
        priority={"uint64_param": 2**64 - 1}, sequence_id={"int64_param": 4}, mine={"bool_param": 1}
    )
    async with serve(models) as running:
        assert (await stub_of(running).ModelInfer(request)).outputs


# Streams


async def test_a_stream_answers_in_order_and_survives_failures(serve, models):
    requests = [
        encoded(PICTURES[0], id="a"),
        encoded(b"no", id="b"),
        *(encoded(PICTURES[2], id=str(n)) for n in range(80)),
    ]
    async with serve(models) as running:
        responses = [response async for response in stub_of(running).ModelStreamInfer(iter(requests))]
    assert [response.infer_response.id for response in responses] == [request.id for request in requests]
    assert [bool(response.error_message) for response in responses] == [False, True, *[False] * 80]
    assert responses[0].infer_response.parameters["triton_final_response"].bool_param
    assert array_of(responses[0].infer_response).argmax() == 0


async def test_a_stream_that_is_left_ends_its_work(serve, models):
    async with serve(models) as running:
        call = stub_of(running).ModelStreamInfer()
        await call.write(encoded(PICTURES[0]))
        assert (await call.read()).infer_response.outputs
        call.cancel()
        await asyncio.gather(call.code(), return_exceptions=True)
        assert (await stub_of(running).ModelInfer(encoded(PICTURES[0]))).outputs


# Statistics


async def test_statistics_count_requests_of_both_protocols(serve, models):
    async with serve(models) as running:
        stub = stub_of(running)
        await stub.ModelInfer(encoded(*PICTURES))
        await running.stub.Classify(taxon_pb.ClassifyRequest(image=PICTURES[0]))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ModelInfer(encoded(b"no"))
        (found,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        assert (await stub.ModelStatistics(pb.ModelStatisticsRequest(name="colors", version="1"))).model_stats
    stats = found.inference_stats
    assert (found.name, found.version, found.inference_count) == ("colors", "1", 4)
    assert (stats.success.count, stats.fail.count, stats.queue.count) == (2, 1, 2)
    assert 2 <= found.execution_count <= 4
    assert found.execution_count == sum(one.compute_infer.count for one in found.batch_stats)
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    assert found.last_inference > 1_700_000_000_000


async def test_statistics_of_an_unknown_model(serve, models, refused):
    async with serve(models) as running:
        error = await refused(stub_of(running).ModelStatistics(pb.ModelStatisticsRequest(name="birds")))
    assert error.code is Code.NOT_FOUND


# Models without a manifest


async def test_add_and_subtract(serve, tmp_path):
    simple(tmp_path / "models")
    a, b = np.arange(32, dtype=np.int32).reshape(2, 16), np.full((2, 16), 3, np.int32)
    only = [pb.ModelInferRequest.InferRequestedOutputTensor(name="OUTPUT1")]
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        both = await stub.ModelInfer(pair(a, b))
        one = await stub.ModelInfer(pair(a, b, outputs=only))
        best = await stub.ModelInfer(pair(a, b, outputs=[classes("OUTPUT0", 1)]))
    assert (array_of(both) == a + b).all()
    assert (array_of(both, 1) == a - b).all()
    assert [output.name for output in one.outputs] == ["OUTPUT1"]
    assert (array_of(one) == a - b).all()
    assert elements_of(best) == ["18:15", "34:15"]


async def test_requests_of_different_lengths_are_answered_together(serve, tmp_path):
    free_length(tmp_path / "models")

    def request(length: int) -> pb.ModelInferRequest:
        values = np.ones((2, length), "<f4")
        inputs = [sent("values", "FP32", values.shape)]
        return pb.ModelInferRequest(model_name="free", inputs=inputs, raw_input_contents=[values.tobytes()])

    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        responses = await asyncio.gather(*[stub.ModelInfer(request(length)) for length in [3, 5, 3, 70, 5] * 4])
    for response, length in zip(responses, [3, 5, 3, 70, 5] * 4, strict=True):
        assert array_of(response).tolist() == [[length], [length]]
        assert response.outputs[1].shape == [2, length]


async def test_a_free_axis_that_is_no_batch_is_not_batched(serve, tmp_path):
    mixing(tmp_path / "models")
    values = np.array([[1, 2], [3, 6]], "<f4")
    request = pb.ModelInferRequest(
        model_name="mixing", inputs=[sent("values", "FP32", [2, 2])], raw_input_contents=[values.tobytes()]
    )
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="mixing"))).config
        response = await stub.ModelInfer(request)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 2]
    assert array_of(response).tolist() == [[-1, -2], [1, 2]]


async def test_different_batches_in_one_request(serve, tmp_path, refused):
    simple(tmp_path / "models")
    async with serve(tmp_path / "models") as running:
        error = await refused(stub_of(running).ModelInfer(pair(np.zeros((1, 16)), np.zeros((2, 16)))))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_classify_does_not_see_models_without_labels(serve, models, refused):
    simple(models)
    async with serve(models) as running:
        listed = await running.stub.ListModels(taxon_pb.ListModelsRequest())
        error = await refused(running.stub.Classify(taxon_pb.ClassifyRequest(model_name="simple", image=PICTURES[0])))
    assert [model.name for model in listed.models] == ["colors"]
    assert error.code is Code.NOT_FOUND


# Model control


async def test_index_says_what_is_refused_and_why(serve, models):
    strings(models)
    async with serve(models) as running:
        stub = stub_of(running)
        listed = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
        ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [(one.name, one.version, one.state) for one in listed.models] == [
        ("colors", "1", "READY"),
        ("strings", "1", "UNAVAILABLE"),
    ]
    assert "tensor(string)" in listed.models[1].reason
    assert [one.name for one in ready.models] == ["colors"]


async def test_unload_and_load_again(serve, models, refused):
    async with serve(models, *CONTROL) as running:
        stub = stub_of(running)
        await stub.ModelInfer(encoded(PICTURES[0]))
        assert "model_repository" in (await stub.ServerMetadata(pb.ServerMetadataRequest())).extensions
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="colors"))
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="colors"))).ready
        assert (await refused(stub.ModelInfer(encoded(PICTURES[0])))).code is Code.NOT_FOUND
        (gone,) = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert (gone.state, gone.reason) == ("UNAVAILABLE", "unloaded")
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="colors"))).ready
        (figures,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        assert figures.inference_count == 0  # they count from the load on
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).outputs


async def test_load_finds_new_versions_and_new_models(serve, models):
    async with serve(models, *CONTROL) as running:
        stub = stub_of(running)
        toy_bundle(models)
        simple(models)
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
        # KServe's layout: the name is field 1.
        loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="simple"))
        assert (await stub.ModelInfer(encoded(PICTURES[0]))).model_version == "2"
        assert (await stub.ModelInfer(pair(np.zeros((1, 16)), np.zeros((1, 16))))).outputs
    assert (loaded.model_name, loaded.is_loaded) == ("simple", True)


async def test_a_graph_is_read_again_under_load(serve, tmp_path):
    simple(tmp_path / "models")
    zeros = np.zeros((1, 16))
    async with serve(tmp_path / "models", *CONTROL) as running:
        stub = stub_of(running)
        for _ in range(3):
            calls = [stub.ModelInfer(pair(zeros, zeros)) for _ in range(20)]
            await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simple"))
            assert all(response.outputs for response in await asyncio.gather(*calls))


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("birds", Code.NOT_FOUND, "MODEL_NOT_FOUND"),
        ("../models/colors", Code.INVALID_ARGUMENT, "FIELD_INVALID"),
        ("", Code.INVALID_ARGUMENT, "FIELD_INVALID"),
        ("strings", Code.FAILED_PRECONDITION, "MODEL_REFUSED"),
    ],
)
async def test_models_that_cannot_be_loaded(serve, models, refused, name, code, reason):
    strings(models)
    async with serve(models, *CONTROL) as running:
        error = await refused(stub_of(running).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name)))
    assert (error.code, error.reason) == (code, reason)
    assert not name or not name.isalpha() or "failed to load" in error.message  # Triton's clients look for it


async def test_files_never_come_by_call(serve, models, refused):
    parameters = {"file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"graph")}
    async with serve(models, *CONTROL) as running:
        error = await refused(
            stub_of(running).RepositoryModelLoad(
                pb.RepositoryModelLoadRequest(model_name="colors", parameters=parameters)
            )
        )
    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "UNSUPPORTED")


@pytest.mark.parametrize("verb", ["Load", "Unload"])
async def test_control_is_off_unless_switched_on(serve, models, refused, verb):
    async with serve(models) as running:
        call = getattr(stub_of(running), f"RepositoryModel{verb}")
        error = await refused(call(getattr(pb, f"RepositoryModel{verb}Request")(model_name="colors")))
        assert (await stub_of(running).ModelReady(pb.ModelReadyRequest(name="colors"))).ready
    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "UNSUPPORTED")


async def test_what_is_still_being_loaded_is_unavailable_and_not_unknown(serve, models, refused):
    """A balancer may try elsewhere; NOT_FOUND would tell the caller that the name is wrong."""
    async with serve(models) as running:
        running.server._control._states["late", 1] = type(running.server._control.index()[0])("late", 1, "LOADING")
        error = await refused(stub_of(running).ModelInfer(encoded(PICTURES[0], model="late")))
        ready = await stub_of(running).ModelReady(pb.ModelReadyRequest(name="late"))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "NOT_SERVING")
    assert not ready.ready


async def test_priority_reaches_the_queue(serve, tmp_path):
    simple(tmp_path / "models")
    zeros = np.zeros((1, 16))
    async with serve(tmp_path / "models") as running:
        (model,) = running.server._tensor_models.listing()
        submit, seen = model.runs.submit, []

        async def noting(payload, deadline, priority):
            seen.append(priority)
            return await submit(payload, deadline, priority)

        model.runs.submit = noting
        for priority in (None, {"uint64_param": 1}, {"int64_param": 7}):
            parameters = {"priority": pb.InferParameter(**priority)} if priority else {}
            await stub_of(running).ModelInfer(pair(zeros, zeros, parameters=parameters))
    assert seen == [0, 1, 7]
