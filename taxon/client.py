"""The Python client of `taxon.v1`: classification, explanations, feedback. A deadline on every call, retries only where
the server says that another replica may answer, errors as exceptions with a reason.

Answers are the messages of the API as they are; their stubs type them.
"""

import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from taxon.connection import ChannelOptions, Connection
from taxon.errors import TaxonError, from_call, from_status, too_large
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc
from taxon.v1 import explanation_service_pb2 as explanation_pb
from taxon.v1 import explanation_service_pb2_grpc as explanation_pb_grpc
from taxon.v1 import feedback_service_pb2 as feedback_pb
from taxon.v1 import feedback_service_pb2_grpc as feedback_pb_grpc

Picture = bytes | str | os.PathLike[str]
"""Encoded bytes, or the path of a file that holds them."""
DEFAULT_TIMEOUT_S = 10.0
MAX_MESSAGE_BYTES = 64 * 2**20
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
EXPLANATION_METHODS = {
    "": explanation_pb.EXPLANATION_METHOD_UNSPECIFIED,
    "activation": explanation_pb.EXPLANATION_METHOD_ACTIVATION,
    "masking": explanation_pb.EXPLANATION_METHOD_MASKING,
}
CHANNEL_OPTIONS: ChannelOptions = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A server that restarts is found again soon; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

AnswerT = TypeVar("AnswerT")
Exchange = Generator[tuple[str, Message], Any, AnswerT]
"""What a client says in one of its calls: yields the name of an RPC with its request, is sent the response, and so on
until it returns the answer. Waits for nothing, so that it serves both clients.
"""


class Stubs(
    pb_grpc.ClassificationServiceStub, explanation_pb_grpc.ExplanationServiceStub, feedback_pb_grpc.FeedbackServiceStub
):
    """The methods of all services."""

    def __init__(self, channel: Any) -> None:
        pb_grpc.ClassificationServiceStub.__init__(self, channel)
        explanation_pb_grpc.ExplanationServiceStub.__init__(self, channel)
        feedback_pb_grpc.FeedbackServiceStub.__init__(self, channel)


class Client:
    """A blocking client, safe to share between threads.

    Args:
        target: `host:port`, or any gRPC target; `dns:///name:port` spreads calls over every address.
        timeout_s: Seconds that a call may take unless it says otherwise.
        credentials: For TLS, as `taxon.connection.tls` makes them; without them the connection is not encrypted.
        key: Made by `taxon keys add`, for servers that ask for one. Without TLS it is sent to this machine only.
        server_name: The name that the server's certificate must have, if it is not the target's.

    Every call raises `taxon.errors.TaxonError`: its subclass says what to do, its `reason` why.

    Raises:
        ValueError: The key would be sent over a network in the open.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        key: str | None = None,
        server_name: str = "",
    ) -> None:
        connection = Connection(target, credentials, key, server_name)
        self._channel = connection.channel(CHANNEL_OPTIONS)
        self._metadata = connection.metadata
        self._stub = Stubs(self._channel)
        self._timeout_s = timeout_s

    def classify(
        self,
        picture: Picture | None = None,
        *,
        features: Sequence[float] | None = None,
        model: str = "",
        version: str = "",
        max_results: int = 0,
        min_score: float | None = None,
        routing_key: str = "",
        timeout_s: float | None = None,
    ) -> pb.ClassifyResponse:
        """Returns the most likely classes of one picture or feature vector, best first.

        Args:
            picture: JPEG, PNG, WebP or GIF.
            features: Instead of a picture, the values in the order of the training columns.
            model: Empty for the server's only model.
            version: Empty for the default one.
            max_results: 0 for the server's default, 5.
            min_score: The lowest score to return, in [0, 1].
            routing_key: Such as a user: while a canary is on trial, calls of the same key go to the same version.
            timeout_s: Seconds; the client's default if None.
        """
        request = classify_request(picture, features, model, version, max_results, min_score, routing_key)
        return self._answer(_classify(request), timeout_s)

    def classify_batch(
        self, requests: Iterable[pb.ClassifyRequest], *, timeout_s: float | None = None
    ) -> list[pb.ClassifyResponse | TaxonError]:
        """Classifies up to 256 inputs, made by `classify_request`, in one call: an answer or an error for each."""
        return self._answer(_classify_batch(requests), timeout_s)

    def explain(
        self,
        picture: Picture,
        *,
        label: str = "",
        method: str = "",
        overlay: bool = False,
        model: str = "",
        version: str = "",
        timeout_s: float | None = None,
    ) -> explanation_pb.ExplainResponse:
        """Returns how much each place of a picture speaks for a label.

        Args:
            picture: JPEG, PNG, WebP or GIF.
            label: Empty for the one with the highest score.
            method: `activation`, `masking`, or empty for what the model offers.
            overlay: Whether to return the map over its picture, as a PNG file.
            model: Empty for the server's only model.
            version: Empty for the default one.
            timeout_s: Seconds; the client's default if None. By masking the server uses as many as it takes.
        """
        return self._answer(_explain(explain_request(picture, label, method, overlay, model, version)), timeout_s)

    def submit_feedback(
        self, request: feedback_pb.SubmitFeedbackRequest, *, timeout_s: float | None = None
    ) -> feedback_pb.SubmitFeedbackResponse:
        """Says what a picture shows; `feedback_request` makes the message. Once it returns, the server has kept it."""
        return self._answer(_submit_feedback(request), timeout_s)

    def list_models(self, *, timeout_s: float | None = None) -> list[pb.Model]:
        """Returns every loaded version of every model."""
        return self._answer(_list_models(), timeout_s)

    def get_model(self, model: str = "", version: str = "", *, timeout_s: float | None = None) -> pb.Model:
        """Describes one version of one model."""
        return self._answer(_get_model(model, version), timeout_s)

    def _answer(self, exchange: Exchange[AnswerT], timeout_s: float | None) -> AnswerT:
        response: Message | None = None
        with _typed_errors():
            while True:
                try:
                    rpc, request = exchange.send(response)
                except StopIteration as end:
                    answer: AnswerT = end.value
                    return answer
                _check_size(request)
                timeout = self._timeout_s if timeout_s is None else timeout_s
                response = getattr(self._stub, rpc)(request, timeout=timeout, metadata=self._metadata)

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """The same for asyncio. Make it inside the running loop; arguments, answers and errors are `Client`'s."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        key: str | None = None,
        server_name: str = "",
    ) -> None:
        connection = Connection(target, credentials, key, server_name)
        self._channel = connection.aio_channel(CHANNEL_OPTIONS)
        self._metadata = connection.metadata
        self._stub = Stubs(self._channel)
        self._timeout_s = timeout_s

    async def classify(
        self,
        picture: Picture | None = None,
        *,
        features: Sequence[float] | None = None,
        model: str = "",
        version: str = "",
        max_results: int = 0,
        min_score: float | None = None,
        routing_key: str = "",
        timeout_s: float | None = None,
    ) -> pb.ClassifyResponse:
        """As `Client.classify`."""
        request = classify_request(picture, features, model, version, max_results, min_score, routing_key)
        return await self._answer(_classify(request), timeout_s)

    async def classify_batch(
        self, requests: Iterable[pb.ClassifyRequest], *, timeout_s: float | None = None
    ) -> list[pb.ClassifyResponse | TaxonError]:
        """As `Client.classify_batch`."""
        return await self._answer(_classify_batch(requests), timeout_s)

    async def explain(
        self,
        picture: Picture,
        *,
        label: str = "",
        method: str = "",
        overlay: bool = False,
        model: str = "",
        version: str = "",
        timeout_s: float | None = None,
    ) -> explanation_pb.ExplainResponse:
        """As `Client.explain`."""
        return await self._answer(_explain(explain_request(picture, label, method, overlay, model, version)), timeout_s)

    async def submit_feedback(
        self, request: feedback_pb.SubmitFeedbackRequest, *, timeout_s: float | None = None
    ) -> feedback_pb.SubmitFeedbackResponse:
        """As `Client.submit_feedback`."""
        return await self._answer(_submit_feedback(request), timeout_s)

    async def list_models(self, *, timeout_s: float | None = None) -> list[pb.Model]:
        """As `Client.list_models`."""
        return await self._answer(_list_models(), timeout_s)

    async def get_model(self, model: str = "", version: str = "", *, timeout_s: float | None = None) -> pb.Model:
        """As `Client.get_model`."""
        return await self._answer(_get_model(model, version), timeout_s)

    async def _answer(self, exchange: Exchange[AnswerT], timeout_s: float | None) -> AnswerT:
        response: Message | None = None
        with _typed_errors():
            while True:
                try:
                    rpc, request = exchange.send(response)
                except StopIteration as end:
                    answer: AnswerT = end.value
                    return answer
                _check_size(request)
                timeout = self._timeout_s if timeout_s is None else timeout_s
                response = await getattr(self._stub, rpc)(request, timeout=timeout, metadata=self._metadata)

    async def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def classify_request(
    picture: Picture | None = None,
    features: Sequence[float] | None = None,
    model: str = "",
    version: str = "",
    max_results: int = 0,
    min_score: float | None = None,
    routing_key: str = "",
) -> pb.ClassifyRequest:
    """Builds the message for one input; the arguments are those of `Client.classify`.

    Raises:
        ValueError: Both or neither of `picture` and `features`.
        OSError: The picture's file cannot be read.
        MessageTooLargeError: It is larger than any message.
    """
    if (picture is None) == (features is None):
        raise ValueError("give either a picture or features")
    request = pb.ClassifyRequest(
        model_name=model,
        model_version=version,
        max_results=max_results,
        min_score=min_score,
        routing_key=routing_key,
    )
    if features is not None:
        request.features.values.extend(features)
    elif picture is not None:
        request.image = _encoded(picture)
    return request


def explain_request(
    picture: Picture,
    label: str = "",
    method: str = "",
    overlay: bool = False,
    model: str = "",
    version: str = "",
) -> explanation_pb.ExplainRequest:
    """Builds the message for one picture; the arguments are those of `Client.explain`.

    Raises:
        ValueError: There is no such method.
        OSError: The picture's file cannot be read.
        MessageTooLargeError: It is larger than any message.
    """
    if method not in EXPLANATION_METHODS:
        raise ValueError(f"method must be one of {[*filter(None, EXPLANATION_METHODS)]}, not {method!r}")
    return explanation_pb.ExplainRequest(
        model_name=model,
        model_version=version,
        image=_encoded(picture),
        label=label,
        method=EXPLANATION_METHODS[method],
        include_overlay=overlay,
    )


def feedback_request(
    labels: Sequence[str],
    *,
    contributor: str,
    request_id: str = "",
    picture: Picture | None = None,
    model: str = "",
    version: str = "",
    share: bool = False,
    license: str = "",  # noqa: A002 - as the message calls it
    note: str = "",
) -> feedback_pb.SubmitFeedbackRequest:
    """Builds what somebody says of a picture, who consents to models being trained on it.

    Args:
        labels: That fit; empty: none of the model's classes does.
        contributor: Who says so: always the same for the same person.
        request_id: Of the answer that is spoken of.
        picture: Instead of an answer's id.
        model: With a picture; empty for the server's only model.
        version: With a picture; empty for the default one.
        share: Whether it may be passed on to others too.
        license: Of the picture, as SPDX names it.
        note: What else there is to say.

    Raises:
        ValueError: Both or neither of `request_id` and `picture`.
        OSError: The picture's file cannot be read.
        MessageTooLargeError: It is larger than any message.
    """
    if bool(request_id) == (picture is not None):
        raise ValueError("give either a request_id or a picture")
    request = feedback_pb.SubmitFeedbackRequest(
        labels=labels,
        none_of_these=not labels,
        contributor=contributor,
        consent=feedback_pb.CONSENT_SHARE if share else feedback_pb.CONSENT_TRAIN,
        license=license,
        note=note,
        model_name=model,
        model_version=version,
    )
    if picture is None:
        request.request_id = request_id
    else:
        request.image = _encoded(picture)
    return request


def _encoded(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    path = Path(picture)
    if path.is_file() and (byte_count := path.stat().st_size) > MAX_MESSAGE_BYTES:
        raise too_large(byte_count, MAX_MESSAGE_BYTES)  # before gigabytes are read
    return path.read_bytes()


def _check_size(request: Message) -> None:
    if (byte_count := request.ByteSize()) > MAX_MESSAGE_BYTES:
        raise too_large(byte_count, MAX_MESSAGE_BYTES)


def _classify(request: pb.ClassifyRequest) -> Exchange[pb.ClassifyResponse]:
    response: pb.ClassifyResponse = yield "Classify", request
    return response


def _classify_batch(requests: Iterable[pb.ClassifyRequest]) -> Exchange[list[pb.ClassifyResponse | TaxonError]]:
    response: pb.BatchClassifyResponse = yield "BatchClassify", pb.BatchClassifyRequest(requests=requests)
    return [
        result.response if result.WhichOneof("outcome") == "response" else from_status(result.error)
        for result in response.results
    ]


def _explain(request: explanation_pb.ExplainRequest) -> Exchange[explanation_pb.ExplainResponse]:
    response: explanation_pb.ExplainResponse = yield "Explain", request
    return response


def _submit_feedback(
    request: feedback_pb.SubmitFeedbackRequest,
) -> Exchange[feedback_pb.SubmitFeedbackResponse]:
    response: feedback_pb.SubmitFeedbackResponse = yield "SubmitFeedback", request
    return response


def _list_models() -> Exchange[list[pb.Model]]:
    models: list[pb.Model] = []
    token = ""
    while True:
        page: pb.ListModelsResponse = yield "ListModels", pb.ListModelsRequest(page_token=token)
        models += page.models
        token = page.next_page_token
        if not token:
            return models


def _get_model(model: str, version: str) -> Exchange[pb.Model]:
    response: pb.GetModelResponse = yield "GetModel", pb.GetModelRequest(model_name=model, model_version=version)
    return response.model


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (grpc.RpcError, grpc.aio.AioRpcError) as error:
        raise from_call(error) from error
