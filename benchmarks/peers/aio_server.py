"""A plain grpc.aio server: a handler that decodes and runs on a pool of as many threads as cores.

MODEL=model.onnx python aio_server.py PORT
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from work import decode, open_session, run

from taxon.v1 import classification_service_pb2 as pb

session = open_session()
pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def answer(encoded: bytes) -> int:
    return int(run(session, [decode(encoded)])[0])


async def classify(request: pb.ClassifyRequest, _: object) -> pb.ClassifyResponse:
    best = await asyncio.get_running_loop().run_in_executor(pool, answer, request.image)
    return pb.ClassifyResponse(classifications=[pb.Classification(class_index=best)])


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 2**20)])
    handler = grpc.unary_unary_rpc_method_handler(
        classify, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("taxon.v1.ClassificationService", {"Classify": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
