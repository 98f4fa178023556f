"""Offline training: labelled data in, a checkpoint, a proven bundle out. Never imports gRPC."""
