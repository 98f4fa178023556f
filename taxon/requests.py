"""What is asked of a server, as messages: pictures from memory or files, features, feedback; refused before it is sent
if no server would take it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import Message

from taxon.errors import too_large
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import explanation_service_pb2 as explanation_pb
from taxon.v1 import feedback_service_pb2 as feedback_pb

Picture = bytes | str | os.PathLike[str]
"""Encoded bytes, or the path of a file that holds them."""
MAX_MESSAGE_BYTES = 64 * 2**20
EXPLANATION_METHODS = {
    "": explanation_pb.EXPLANATION_METHOD_UNSPECIFIED,
    "activation": explanation_pb.EXPLANATION_METHOD_ACTIVATION,
    "masking": explanation_pb.EXPLANATION_METHOD_MASKING,
}


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
        request.image = encoded(picture)
    return request


def explain_request(
    picture: Picture,
    label: str = "",
    method: str = "",
    overlay: bool = False,
    model: str = "",
    version: str = "",
    neighbors: int = 0,
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
        image=encoded(picture),
        label=label,
        method=EXPLANATION_METHODS[method],
        include_overlay=overlay,
        max_neighbors=neighbors,
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
        request.image = encoded(picture)
    return request


def encoded(picture: Picture) -> bytes:
    """The bytes of a picture.

    Raises:
        OSError: Its file cannot be read.
        MessageTooLargeError: It is larger than any message.
    """
    if isinstance(picture, bytes):
        return picture
    path = Path(picture)
    if path.is_file() and (byte_count := path.stat().st_size) > MAX_MESSAGE_BYTES:
        raise too_large(byte_count, MAX_MESSAGE_BYTES)  # before gigabytes are read
    return path.read_bytes()


def check_size(request: Message) -> None:
    """Refuses what no server would take.

    Raises:
        MessageTooLargeError: It is larger than any message.
    """
    if (byte_count := request.ByteSize()) > MAX_MESSAGE_BYTES:
        raise too_large(byte_count, MAX_MESSAGE_BYTES)
