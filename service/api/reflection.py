"""gRPC server reflection, v1 and v1alpha.

grpcio-reflection serves v1alpha alone. The messages of v1 are the same on the wire, so the same servicer
answers under both names.
"""

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from taxon.service.api.guard import Guard

V1 = "grpc.reflection.v1.ServerReflection"


def register(guard: Guard, service_names: list[str]) -> None:
    """Adds both services to a server that has not started."""
    servicer = reflection.aio.ReflectionServicer([*service_names, reflection.SERVICE_NAME, V1])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    for name in (reflection.SERVICE_NAME, V1):
        guard.add_registered_method_handlers(name, methods)
