"""Waits until a server is SERVING; prints the point of `time.perf_counter()` at which it was.

python -m benchmarks.ready HOST:PORT
"""

import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            print(time.perf_counter())
            break
