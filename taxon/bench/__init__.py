"""Load for gRPC servers: generated, sent on a schedule, measured, shown."""
