"""Calls of several threads at once, and what became of them."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np

from taxon import client
from taxon.connection import Connection
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.faults.served import RED

CALLS = int(os.environ.get("TAXON_FAULT_CALLS", "3000"))
FEWEST_RESTARTS = 4
PLAIN = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
KINDS = {
    "shipped": client.CHANNEL_OPTIONS,
    "retries UNAVAILABLE only": [("grpc.service_config", json.dumps(PLAIN)), ("grpc.max_reconnect_backoff_ms", 1000)],
}
"""Options of the channels of clients that may be expected."""


def is_red(answer):
    return answer.classifications[0].label == "red"


@dataclass
class Callers:
    """Call from `with` to its end, each over a channel of its own."""

    target: str
    options: list = field(default_factory=list)
    credentials: grpc.ChannelCredentials | None = None
    key: str = ""
    count: int = 4
    pause_s: float = 0.0
    timeout_s: float = 10.0
    batches: bool = False
    """Whether they send messages that are received in turns."""
    is_right: Callable = is_red
    """Whether an answer is one that they may get."""
    wrong: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    """Of every call that was answered."""
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.call) for _ in range(self.count)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert self.wrong == []

    @property
    def answered(self):
        return len(self.seconds)

    def p99_s(self):
        return float(np.quantile(self.seconds, 0.99))

    def ask(self, stub, metadata):
        request = pb.ClassifyRequest(image=RED)
        how = {"timeout": self.timeout_s, "metadata": metadata}
        if self.batches:
            return stub.BatchClassify(pb.BatchClassifyRequest(requests=[request]), **how).results[0].response
        return stub.Classify(request, **how)

    def call(self):
        reached = Connection(self.target, self.credentials, self.key)
        with reached.channel([*self.options, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = ClassificationServiceStub(channel)
            while not self.over.wait(self.pause_s):
                began = time.monotonic()
                try:
                    answer = self.ask(stub, reached.metadata)
                    self.seconds.append(time.monotonic() - began)
                    if not self.is_right(answer):
                        self.wrong.append(answer)
                except grpc.RpcError as error:
                    self.lost.append(f"{error.code().name}: {error.details()}")
