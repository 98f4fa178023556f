"""The flows of Triton's public example clients, written anew. Runs where tritonclient is installed, never in a process
that holds our own stubs: both register the same protobuf symbols.

    python tritonclient_flows.py SERVER FLOW [FOLDER]

FOLDER holds the pictures and examples that a flow needs. Prints one JSON object; a flow that fails raises.
"""

import asyncio
import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.ones((1, 16), np.int32)


def tensor(name, array, datatype, module=triton):
    sent = module.InferInput(name, list(array.shape), datatype)
    sent.set_data_from_numpy(array)
    return sent


def pair(module=triton):
    return [tensor("INPUT0", A, "INT32", module), tensor("INPUT1", B, "INT32", module)]


def check_sums(result):
    assert (result.as_numpy("OUTPUT0") == A + B).all()
    assert (result.as_numpy("OUTPUT1") == A - B).all()


def failure(call, *arguments):
    try:
        call(*arguments)
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("the call did not fail")


def health_metadata(client, _):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.get_model_metadata("simple").name == "simple"
    config = client.get_model_config("simple").config
    assert config.name == "simple"
    statistics = client.get_inference_statistics()
    return {
        "server": client.get_server_metadata(as_json=True),
        "statistics": sorted(model.name for model in statistics.model_stats),
        "unknown": failure(client.get_model_metadata, "wrong_model_name"),
    }


def infer(client, _):
    outputs = [triton.InferRequestedOutput("OUTPUT0"), triton.InferRequestedOutput("OUTPUT1")]
    result = client.infer("simple", pair(), outputs=outputs, request_id="7", priority=1, timeout=5_000_000)
    check_sums(result)
    for compression in ("gzip", "deflate"):
        check_sums(client.infer("simple", pair(), compression_algorithm=compression))
    return {"id": result.get_response().id, "version": result.get_response().model_version}


def asynchronous(client, _):
    answers = queue.Queue()
    for _ in range(50):
        client.async_infer("simple", pair(), callback=lambda result, error: answers.put((result, error)))
    for _ in range(50):
        result, error = answers.get(timeout=20)
        assert error is None, error
        check_sums(result)
    handle = client.async_infer("simple", pair(), callback=lambda result, error: answers.put((result, error)))
    handle.cancel()
    return {"cancelled_or_done": answers.get(timeout=20) is not None}


def aio(server, _):
    async def flow():
        async with triton_aio.InferenceServerClient(server) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*[client.infer("simple", pair(triton_aio)) for _ in range(20)])
            for result in results:
                check_sums(result)

            async def requests():
                for number in range(10):
                    yield {"model_name": "simple", "inputs": pair(triton_aio), "request_id": str(number)}

            ids = []
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                ids.append(result.get_response().id)
            return ids

    return {"ids": asyncio.run(flow())}


def stream(client, _):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(20):
        client.async_stream_infer("simple", pair(), request_id=str(number), enable_empty_final_response=True)
    client.async_stream_infer("wrong_model_name", pair())
    ids = []
    for _ in range(20):
        result, error = answers.get(timeout=20)
        assert error is None, error
        check_sums(result)
        ids.append(result.get_response().id)
    _, error = answers.get(timeout=20)
    client.stop_stream()
    return {"ids": ids, "error": error.message()}


def string(client, folder):
    """Encoded pictures are this server's strings."""
    files = sorted(folder.glob("*.png"))
    elements = np.array([file.read_bytes() for file in files], dtype=np.object_)
    result = client.infer("colors", [tensor("image", elements, "BYTES")])
    return {"best": result.as_numpy("scores").argmax(axis=1).tolist(), "files": [file.stem for file in files]}


def explicit_contents(server, folder):
    """By the stubs alone, with typed contents: integers and bytes."""
    import grpc

    with grpc.insecure_channel(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="simple", model_version="1", id="typed")
        for name, array in (("INPUT0", A), ("INPUT1", B)):
            sent = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            sent.contents.int_contents.extend(array.ravel().tolist())
        response = stub.ModelInfer(request)
        sums = np.frombuffer(response.raw_output_contents[0], np.int32).reshape(response.outputs[0].shape)
        assert (sums == A + B).all()
        request = service_pb2.ModelInferRequest(model_name="colors")
        sent = request.inputs.add(name="image", datatype="BYTES", shape=[1])
        sent.contents.bytes_contents.append((folder / "green.png").read_bytes())
        response = stub.ModelInfer(request)
    return {"best": int(np.frombuffer(response.raw_output_contents[0], np.float32).argmax())}


def model_control(client, _):
    index = client.get_model_repository_index()
    client.load_model("simple")
    assert client.is_model_ready("simple")
    client.unload_model("simple")
    assert not client.is_model_ready("simple")
    client.load_model("simple")
    assert client.is_model_ready("simple")
    _, message = failure(client.load_model, "wrong_model_name")
    assert "failed to load" in message
    return {
        "index": [[model.name, model.state] for model in index.models],
        "file override": failure(lambda: client.load_model("simple", config="{}", files={"file:1/model.onnx": b"x"})),
    }


def image_client(client, folder):
    """What Triton's image_client.py asks of a model, and its classification request."""
    metadata, config = client.get_model_metadata("colors"), client.get_model_config("colors").config
    assert len(metadata.inputs) == len(metadata.outputs) == len(config.input) == 1
    assert metadata.outputs[0].datatype == "FP32"
    assert len(metadata.outputs[0].shape) == 2
    assert config.max_batch_size > 0
    assert len(metadata.inputs[0].shape) == 4
    assert config.input[0].format == model_config_pb2.ModelInput.FORMAT_NHWC
    pixels = np.load(folder / "green.npy")[np.newaxis]
    outputs = [triton.InferRequestedOutput(metadata.outputs[0].name, class_count=2)]
    result = client.infer("colors", [tensor("image", pixels, "UINT8")], outputs=outputs)
    found = [element.decode().split(":") for element in result.as_numpy("scores").ravel()]
    return {"found": [[index, label] for _, index, label in found]}


def same_scores(client, folder):
    pixels, encoded = np.load(folder / "green.npy")[np.newaxis], (folder / "green.png").read_bytes()
    by_tensor = client.infer("colors", [tensor("image", pixels, "UINT8")]).as_numpy("scores")
    by_picture = client.infer("colors", [tensor("image", np.array([encoded], np.object_), "BYTES")]).as_numpy("scores")
    return {"tensor": by_tensor.tolist(), "picture": by_picture.tolist()}


def example(client, folder):
    """A model without a manifest answers as torch did."""
    model = folder.name
    stored = json.loads((folder / "example.json").read_text())
    metadata = client.get_model_metadata(model)
    dtypes = {"INT64": np.int64, "FP32": np.float32}
    inputs = [
        tensor(one.name, np.array(stored[one.name], dtypes[one.datatype]), one.datatype) for one in metadata.inputs
    ]
    (output,) = metadata.outputs
    result = client.infer(model, inputs)
    classes = client.infer(model, inputs, outputs=[triton.InferRequestedOutput(output.name, class_count=1)])
    difference = np.abs(result.as_numpy(output.name) - np.array(stored[output.name], np.float32)).max()
    return {"difference": float(difference), "best": [one.decode() for one in classes.as_numpy(output.name).ravel()]}


def reuse(client, _):
    inputs = pair()
    for _ in range(3):
        check_sums(client.infer("simple", inputs))
    inputs[0].set_data_from_numpy(B)
    return {"sum": int(client.infer("simple", inputs).as_numpy("OUTPUT0").sum())}


def keepalive(server, _):
    options = triton.KeepAliveOptions(2**31 - 1, 20_000, keepalive_permit_without_calls=False)
    with triton.InferenceServerClient(server, keepalive_options=options) as client:
        check_sums(client.infer("simple", pair()))
    return {}


def field_facts(_, __):
    """Every field and method of their descriptors, to compare ours with."""
    fields = {}

    def note(message):
        for field in message.fields:
            kind = (field.message_type or field.enum_type or field).full_name if field.type in (11, 14) else ""
            fields[field.full_name] = [field.number, field.type, field.is_repeated, kind]
        for nested in message.nested_types:
            note(nested)

    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            note(message)
    methods = {
        method.name: [method.input_type.full_name, method.output_type.full_name]
        for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    }
    return {"fields": fields, "methods": methods}


ON_CLIENT = [
    health_metadata, infer, asynchronous, stream, string, model_control, image_client, same_scores, example, reuse,
]  # fmt: skip
ON_SERVER = [aio, explicit_contents, keepalive, field_facts]


def main(server, flow, folder="."):
    for known in ON_SERVER:
        if known.__name__ == flow:
            return known(server, Path(folder))
    (known,) = [known for known in ON_CLIENT if known.__name__ == flow]
    with triton.InferenceServerClient(server) as client:
        return known(client, Path(folder))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
