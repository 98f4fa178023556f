"""The Open Inference Protocol in and out."""
