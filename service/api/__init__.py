"""gRPC in and out: `taxon.v1`, statuses, health, reflection."""
