"""The processes that speak gRPC: one, or several that share a port."""
