"""The gRPC service: bundles in, ONNX Runtime inside, labels out. Never imports torch."""

import os

# Read when gRPC is imported. Its own lines are no JSON, and what they tell of has ended a call or a connection.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
