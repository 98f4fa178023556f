"""The gRPC service: bundles in, ONNX Runtime inside, labels out. Never imports torch."""
