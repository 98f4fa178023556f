"""The Python client of KServe against a server. Runs where `kserve` is installed, in a process of its own.

    python kserve_flows.py SERVER

Prints one JSON object.
"""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc


async def main(server: str) -> dict:
    array = np.arange(16, dtype=np.int32).reshape(1, 16)
    client = InferenceGRPCClient(server, timeout=20)
    said = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("simple"),
    }
    typed = [InferInput(name, [1, 16], "INT32", array.ravel().tolist()) for name in ("INPUT0", "INPUT1")]
    raw = [InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for one in raw:
        one.set_data_from_numpy(array, binary_data=True)
    sums = []
    for inputs in (typed, raw):
        response = await client.infer(InferRequest("simple", inputs, request_id="k"))
        sums.append(next(output for output in response.outputs if output.name == "OUTPUT0").as_numpy().tolist())
    said["sums"] = sums
    # The control calls of KServe's protocol name the model in field 1.
    async with grpc.aio.insecure_channel(server) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simple"))
    said["loaded"] = [loaded.model_name, loaded.isLoaded]
    await client.close()
    return said


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))))
