"""How a client's channel behaves: calls go to servers that are healthy, in turns; what failed of no fault of its own is
retried, within a budget; connections that died are noticed.
"""

import json

from taxon.connection import ChannelOptions
from taxon.requests import MAX_MESSAGE_BYTES

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},  # who says NOT_SERVING, because it starts or leaves, gets no more calls
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},  # while most calls fail, retries make nothing better
    "methodConfig": [
        {
            "name": [{"service": f"taxon.v1.{name}Service"} for name in ("Classification", "Explanation", "Feedback")],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # A server that ends may cancel calls that it has not looked at. More load is no answer to overload.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
CHANNEL_OPTIONS: ChannelOptions = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A server that restarts is found again soon; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A peer that is gone without a word is noticed within 40 s, and balancers on the way keep an idle connection.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
