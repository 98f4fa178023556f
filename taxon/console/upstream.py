"""What the console asks its server: answers and feedback as any client does, the rest by the Open Inference Protocol.

Every method raises `taxon.errors.TaxonError`.
"""

from collections.abc import Sequence
from typing import Self

from taxon.channel_options import CHANNEL_OPTIONS
from taxon.client import AsyncClient
from taxon.connection import Connection
from taxon.errors import typed
from taxon.inference import open_inference_service_pb2 as inference_pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import explanation_service_pb2 as explanation_pb
from taxon.v1 import feedback_service_pb2 as feedback_pb

LOOK_S = 3.0
"""What a page waits for at most, but for answers and explanations."""
EXPLAIN_S = 30.0
NEIGHBORS = 6
"""Training pictures beside an explanation."""


class Upstream:
    """One server. Make it inside the running loop."""

    def __init__(self, connection: Connection) -> None:
        self.target = connection.target
        self._client = AsyncClient(connection)
        self._metadata = connection.metadata
        self._channel = connection.aio_channel(CHANNEL_OPTIONS)
        self._inference = GRPCInferenceServiceStub(self._channel)

    async def classify(self, picture: bytes, model: str, version: str) -> pb.ClassifyResponse:
        """The best classes of a picture."""
        return await self._client.classify(picture, model=model, version=version)

    async def explain(self, picture: bytes, label: str, model: str, version: str) -> explanation_pb.ExplainResponse:
        """Which parts of a picture speak for a label, as an overlay, and training pictures that are alike, if the model
        holds some; by masking that takes seconds.
        """
        asked = await self.model(model, version)
        return await self._client.explain(
            picture,
            label=label,
            overlay=True,
            model=asked.name,
            version=asked.version,
            neighbors=min(NEIGHBORS, asked.thumbnail_count),
            timeout_s=EXPLAIN_S,
        )

    async def submit_feedback(self, request: feedback_pb.SubmitFeedbackRequest) -> feedback_pb.SubmitFeedbackResponse:
        """Says what a picture shows."""
        return await self._client.submit_feedback(request)

    async def models(self) -> Sequence[pb.Model]:
        """Every loaded version of every model."""
        return await self._client.list_models(timeout_s=LOOK_S)

    async def model(self, name: str, version: str) -> pb.Model:
        """One version."""
        return await self._client.get_model(name, version, timeout_s=LOOK_S)

    async def ready(self) -> bool:
        """Whether the server wants traffic. Asks for no key."""
        with typed():
            reply = await self._inference.ServerReady(inference_pb.ServerReadyRequest(), timeout=LOOK_S)
            return bool(reply.ready)

    async def index(self) -> Sequence[inference_pb.RepositoryIndexResponse.ModelIndex]:
        """Every version in the server's folder, also those that may not be served, and why. Asks for `inference`."""
        with typed():
            request = inference_pb.RepositoryIndexRequest()
            reply = await self._inference.RepositoryIndex(request, timeout=LOOK_S, metadata=self._metadata)
            return list(reply.models)

    async def statistics(self) -> Sequence[inference_pb.ModelStatistics]:
        """What each version has answered since it was loaded. Asks for `inference`."""
        with typed():
            request = inference_pb.ModelStatisticsRequest()
            reply = await self._inference.ModelStatistics(request, timeout=LOOK_S, metadata=self._metadata)
            return list(reply.model_stats)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._channel.close()
