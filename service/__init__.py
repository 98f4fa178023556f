"""The gRPC service: bundles in, ONNX Runtime inside, labels out. Never imports torch."""

import os

# Read when gRPC is imported. Its own lines are no JSON, and what they tell of has ended a call or a connection.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# gRPC would end its threads before each fork and start them after. Our children are other programs, which inherit none;
# and where no process is to be had, no thread may be either: the server would stand still for good.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
