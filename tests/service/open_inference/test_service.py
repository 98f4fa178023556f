"""The Open Inference Protocol as a caller sees it: a real server, a real channel, our own stubs."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taxon.bundle.manifest import Thresholds
from taxon.bundle.pixels import decode
from taxon.inference import open_inference_service_pb2 as pb
from taxon.v1 import classification_service_pb2 as taxon_pb
from tests.fakes import FEATURE_COUNT, TOY_PIXELS, picture, toy_bundle
from tests.inference_requests import PICTURES, array_of, classes, decoded, elements_of, encoded, sent, stub_of

Code = grpc.StatusCode


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


async def test_familiarity_is_a_second_output(serve, tmp_path):
    toy_bundle(tmp_path / "models", thresholds=Thresholds(unknown=0.9, unknown_by="familiarity"))
    pictures = (*PICTURES, picture((90, 60, 30)))
    asked = pb.ModelInferRequest.InferRequestedOutputTensor(name="familiarity")
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        both = await stub.ModelInfer(encoded(*pictures))
        alone = await stub.ModelInfer(encoded(*pictures, outputs=[asked]))
        replies = [await running.stub.Classify(taxon_pb.ClassifyRequest(image=one)) for one in pictures]
        model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="colors"))
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="colors"))).config
    assert [output.name for output in both.outputs] == ["scores", "familiarity"]
    assert array_of(both).shape == (4, 3)
    expected = [[reply.familiarity] for reply in replies]
    assert array_of(both, 1).tolist() == array_of(alone).tolist() == expected
    (_, told), (_, configured) = model.outputs, config.output
    assert (told.name, told.datatype, list(told.shape)) == ("familiarity", "FP32", [-1, 1])
    assert (configured.name, list(configured.dims), configured.label_filename) == ("familiarity", [1], "")


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
