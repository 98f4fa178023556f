"""A bare grpc.aio server that sends back the first bytes of what it gets, as many as an answer has, and does no work.

python echo_server.py PORT PROCESSES        (all on one port)
"""

import asyncio
import os
import sys

import grpc

ANSWER_BYTES = 200


async def echo(request: bytes, _: object) -> bytes:
    return request[:ANSWER_BYTES]


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 2**20)])
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("taxon.v1.ClassificationService", {"Classify": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


for _ in range(int(sys.argv[2]) - 1):  # before gRPC has started a thread
    if os.fork() == 0:
        break
asyncio.run(main())
