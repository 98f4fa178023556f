"""Requests whose picture is not copied mean what protobuf says that they mean."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from taxon.service.api.request_view import WORTHWHILE_BYTES, RequestView
from taxon.v1 import classification_service_pb2 as pb

LARGE = bytes(range(256)) * (WORTHWHILE_BYTES // 256)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "model_name": st.text(max_size=300),
        "model_version": st.text(max_size=5),
        "max_results": st.integers(-(2**31), 2**31 - 1),
        "min_score": st.floats(width=32, allow_nan=False),
    },
)


def whole(body):
    """What has been found, as one message."""
    view = RequestView.of(body)
    request, image = view.message, view.image
    if image is not None:
        request.image = bytes(image)
    return request


@given(FIELDS, st.booleans())
def test_every_field_survives(fields, image_first):
    parts = [pb.ClassifyRequest(**fields).SerializeToString(), pb.ClassifyRequest(image=LARGE).SerializeToString()]
    body = b"".join(reversed(parts) if image_first else parts)
    view = RequestView.of(body)
    request, image = view.message, view.image
    assert image == LARGE
    assert not request.image
    assert whole(body) == pb.ClassifyRequest.FromString(body)


FEATURES = pb.ClassifyRequest(features=pb.Features(values=[1.0] * 10)).SerializeToString()
IMAGE = pb.ClassifyRequest(image=LARGE).SerializeToString()


@pytest.mark.parametrize(
    "body",
    [
        pb.ClassifyRequest(image=b"small").SerializeToString(),
        pb.ClassifyRequest(features=pb.Features(values=[1.0] * WORTHWHILE_BYTES)).SerializeToString(),
        IMAGE + FEATURES,
        FEATURES + IMAGE,
        IMAGE + IMAGE[:-1] + b"!",
        pb.ClassifyRequest(model_name="m" * WORTHWHILE_BYTES).SerializeToString(),
        IMAGE + bytes([200 << 1 & 0x7F | 0x80 | 5, 200 >> 4, 1, 2, 3, 4]),  # a field of a later version
        b"",
    ],
    ids=["small", "features", "features last", "image last", "two images", "no input", "unknown field", "empty"],
)
def test_what_is_not_plain_is_left_to_protobuf(body):
    assert whole(body) == pb.ClassifyRequest.FromString(body)


@pytest.mark.parametrize(
    "body",
    [
        IMAGE[:-1],
        IMAGE + b"\x0a",
        IMAGE + b"\x0a\x7f",
        IMAGE + b"\x0b",
        IMAGE + b"\xff" * 20,
        b"\xff" * WORTHWHILE_BYTES,
    ],
    ids=["cut", "no length", "too long", "group", "no number", "noise"],
)
def test_no_message_is_no_request(body):
    with pytest.raises(DecodeError):
        pb.ClassifyRequest.FromString(body)
    with pytest.raises(DecodeError):
        RequestView.of(body)
