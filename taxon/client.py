"""The Python client of `taxon.v1`: classification, explanations, feedback. A deadline on every call, retries only where
the server says that another replica may answer, errors as exceptions with a reason.

Answers are the messages of the API as they are; their stubs type them.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from taxon import in_turns
from taxon.channel_options import CHANNEL_OPTIONS
from taxon.connection import Connection
from taxon.errors import TaxonError, from_status, typed
from taxon.hedging import Hedging
from taxon.requests import Picture, check_size, classify_request, encoded, explain_request, feedback_request
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc
from taxon.v1 import explanation_service_pb2 as explanation_pb
from taxon.v1 import explanation_service_pb2_grpc as explanation_pb_grpc
from taxon.v1 import feedback_service_pb2 as feedback_pb
from taxon.v1 import feedback_service_pb2_grpc as feedback_pb_grpc

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_CONCURRENCY = 8
HEDGED = {"Classify", "BatchClassify", "ListModels", "GetModel"}
"""What may be asked twice without harm."""
__all__ = ["AsyncClient", "Client", "Picture", "classify_request", "explain_request", "feedback_request"]

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
        target: `host:port`, or any gRPC target; `dns:///name:port` spreads calls over every address. Or a
            `taxon.connection.Connection`, which says what is left out here.
        timeout_s: Seconds that a call may take unless it says otherwise.
        credentials: For TLS, as `taxon.connection.tls` makes them; without them the connection is not encrypted.
        key: Made by `taxon keys add`, for servers that ask for one. Without TLS it is sent to this machine only.
        server_name: The name that the server's certificate must have, if it is not the target's.
        hedge_after_s: A call without an answer for so long is made a second time, to another server if there are
            several, and the first answer counts; feedback is not. None: never.

    Every call raises `taxon.errors.TaxonError`: its subclass says what to do, its `reason` why.

    Raises:
        ValueError: The key would be sent over a network in the open.
    """

    def __init__(
        self,
        target: str | Connection,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        key: str | None = None,
        server_name: str = "",
        hedge_after_s: float | None = None,
    ) -> None:
        connection = target if isinstance(target, Connection) else Connection(target, credentials, key, server_name)
        self._channel = connection.channel(CHANNEL_OPTIONS)
        self._metadata = connection.metadata
        self._stub = Stubs(self._channel)
        self._timeout_s = timeout_s
        self._hedging = None if hedge_after_s is None else Hedging(hedge_after_s)

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

    def classify_many(
        self,
        pictures: Iterable[Picture],
        *,
        model: str = "",
        version: str = "",
        max_results: int = 0,
        min_score: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        timeout_s: float | None = None,
    ) -> Iterator[tuple[Picture, pb.ClassifyResponse | TaxonError | OSError]]:
        """Classifies any number of pictures, one a call: each with its answer, or why it has none, as they are done.

        Args:
            pictures: Taken as there is room for them; may be endless.
            model: As for `classify`, like the others.
            version: Of the model.
            max_results: Of each.
            min_score: Of each.
            concurrency: Calls under way at once.
            timeout_s: Of each.
        """

        def one(picture: Picture) -> tuple[Picture, pb.ClassifyResponse | TaxonError | OSError]:
            try:
                request = classify_request(picture, None, model, version, max_results, min_score)
                return picture, self._answer(_classify(request), timeout_s)
            except (TaxonError, OSError) as error:
                return picture, error

        yield from in_turns.in_threads(one, pictures, concurrency)

    def explain(
        self,
        picture: Picture,
        *,
        label: str = "",
        method: str = "",
        overlay: bool = False,
        model: str = "",
        version: str = "",
        neighbors: int = 0,
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
            neighbors: Training pictures to return that the model sees most alike, if it holds thumbnails of some.
            timeout_s: Seconds; the client's default if None. By masking the server uses as many as it takes.
        """
        return self._answer(
            _explain(explain_request(picture, label, method, overlay, model, version, neighbors)), timeout_s
        )

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
        with typed():
            while True:
                try:
                    rpc, request = exchange.send(response)
                except StopIteration as end:
                    answer: AnswerT = end.value
                    return answer
                check_size(request)
                timeout, method = self._timeout_s if timeout_s is None else timeout_s, getattr(self._stub, rpc)
                if self._hedging is None or rpc not in HEDGED:
                    response = method(request, timeout=timeout, metadata=self._metadata)
                else:
                    response = self._hedging.blocking(method, request, timeout, self._metadata)

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
        target: str | Connection,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        key: str | None = None,
        server_name: str = "",
        hedge_after_s: float | None = None,
    ) -> None:
        connection = target if isinstance(target, Connection) else Connection(target, credentials, key, server_name)
        self._channel = connection.aio_channel(CHANNEL_OPTIONS)
        self._metadata = connection.metadata
        self._stub = Stubs(self._channel)
        self._timeout_s = timeout_s
        self._hedging = None if hedge_after_s is None else Hedging(hedge_after_s)

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

    async def classify_many(
        self,
        pictures: Iterable[Picture],
        *,
        model: str = "",
        version: str = "",
        max_results: int = 0,
        min_score: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        timeout_s: float | None = None,
    ) -> AsyncIterator[tuple[Picture, pb.ClassifyResponse | TaxonError | OSError]]:
        """As `Client.classify_many`. Files are read in a thread."""

        async def one(picture: Picture) -> tuple[Picture, pb.ClassifyResponse | TaxonError | OSError]:
            try:
                image = picture if isinstance(picture, bytes) else await asyncio.to_thread(encoded, picture)
                request = classify_request(image, None, model, version, max_results, min_score)
                return picture, await self._answer(_classify(request), timeout_s)
            except (TaxonError, OSError) as error:
                return picture, error

        async for found in in_turns.awaited(one, pictures, concurrency):
            yield found

    async def explain(
        self,
        picture: Picture,
        *,
        label: str = "",
        method: str = "",
        overlay: bool = False,
        model: str = "",
        version: str = "",
        neighbors: int = 0,
        timeout_s: float | None = None,
    ) -> explanation_pb.ExplainResponse:
        """As `Client.explain`."""
        return await self._answer(
            _explain(explain_request(picture, label, method, overlay, model, version, neighbors)), timeout_s
        )

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
        with typed():
            while True:
                try:
                    rpc, request = exchange.send(response)
                except StopIteration as end:
                    answer: AnswerT = end.value
                    return answer
                check_size(request)
                timeout, method = self._timeout_s if timeout_s is None else timeout_s, getattr(self._stub, rpc)
                if self._hedging is None or rpc not in HEDGED:
                    response = await method(request, timeout=timeout, metadata=self._metadata)
                else:
                    response = await self._hedging.awaited(method, request, timeout, self._metadata)

    async def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


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
