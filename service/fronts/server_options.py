"""How the gRPC server of a front behaves: how large, how many and how old messages, connections and calls may be."""

import resource

from taxon.service.config import Settings

GRACE_S = 5.0
"""Beyond the longest call, before a connection that has reached its age is closed."""
HANDSHAKE_MS = 10_000
"""For TLS and the first frames of a connection; by gRPC's own limit, two minutes, silent ones would pile up."""
MAX_PENDING_COUNT = 8192
MAX_HEADER_BYTES = 16_384
"""Of all headers of a call together."""


def most_connections(settings: Settings) -> int:
    """Those that one front takes: at most half of the descriptors, for workers and files must always get theirs."""
    descriptor_count, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.max_connections, descriptor_count // 2)


def server_options(settings: Settings, *, shares_port: bool) -> list[tuple[str, int]]:
    """For `grpc.aio.server`.

    Args:
        settings: Of the server.
        shares_port: Whether other fronts listen on the same port.
    """
    longest_s = settings.max_call_seconds
    if settings.model_control == "explicit":  # the call that loads a model lasts as long as two attempts
        longest_s = max(longest_s, 2 * settings.max_load_seconds)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", most_connections(settings)),
        *_limit("grpc.max_connection_age_ms", settings.max_connection_age_seconds),
        *_limit("grpc.max_connection_age_grace_ms", longest_s + GRACE_S),
        *_limit("grpc.max_connection_idle_ms", settings.max_connection_idle_seconds),
        ("grpc.http2.min_ping_interval_without_data_ms", round(settings.min_ping_seconds * 1e3)),
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1e3)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        # One limit; between gRPC's usual two it is a matter of chance whether a call comes in.
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Calls that have come and were not looked at yet; beyond gRPC's own 1,000 it cancels some, whoever made them.
        ("grpc.server.max_pending_requests", MAX_PENDING_COUNT),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_COUNT),
        # Two servers on one port would share its calls by chance; the fronts of one server share them by purpose.
        ("grpc.so_reuseport", int(shares_port)),
    ]


def _limit(name: str, seconds: float) -> list[tuple[str, int]]:
    return [(name, round(seconds * 1e3))] if seconds else []
