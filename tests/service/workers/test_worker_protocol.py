import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxon.bundle import picture_limits
from taxon.bundle.picture_limits import Limits, PictureError, PictureTooLargeError, PictureUndecodableError
from taxon.service import errors
from taxon.service.errors import (
    AnswerNotFoundError,
    CallerLimitError,
    ContributorLimitError,
    DeadlineTooShortError,
    FeedbackStoreFullError,
    FieldInvalidError,
    InferenceFailedError,
    MessageLateError,
    ModelNotFoundError,
    ModelRefusedError,
    NotAllowedError,
    NotFiniteError,
    NotServingError,
    QueueFullError,
    RepositoryUnusableError,
    ServiceError,
    StartError,
    UnauthenticatedError,
    UnsupportedError,
    WorkerEndedError,
)
from taxon.service.runtime.description import Description, GraphConfig, Trial
from taxon.service.runtime.device import CUDA, TENSORRT, Device
from taxon.service.runtime.tensor_types import TensorSpec
from taxon.service.scheduling.arena import Input
from taxon.service.workers.worker_protocol import (
    AS_JSON,
    Decode,
    Decoded,
    Done,
    Load,
    Loaded,
    Run,
    Trying,
    Unload,
    WorkerSettings,
    pack,
    unpacked,
)
from tests.fakes import toy_bundle

ERRORS = [
    FieldInvalidError("image", "is missing"),
    ModelNotFoundError("birds", "7"),
    ModelNotFoundError("birds", "", "there is no such model"),
    QueueFullError("12 inputs wait", 0.25, queued_count=12, max_queued_count=256),
    NotServingError("no worker is ready"),
    InferenceFailedError("the model failed on this input"),
    DeadlineTooShortError(0.05, 0.25),
    UnsupportedError("no such part"),
    ModelRefusedError("a golden differs"),
    NotFiniteError("the scores are not numbers"),
    WorkerEndedError("a worker ended over this input"),
    RepositoryUnusableError("read-only"),
    MessageLateError(2.5),
    UnauthenticatedError(),
    NotAllowedError("admin"),
    CallerLimitError("8 calls are under way", 0.5, {"maxCallCount": "8"}),
    AnswerNotFoundError("f" * 32),
    ContributorLimitError(3, 60.0),
    FeedbackStoreFullError("full"),
    StartError("no device"),
    PictureUndecodableError("damaged", "PNG"),
    PictureTooLargeError(9_000_000, Limits()),
    PictureTooLargeError(900, Limits(), 60_000_000),
]


def sent(*messages):
    """What comes out at the other end."""
    buffer = bytearray(b"".join(map(pack, messages)))
    received = list(unpacked(buffer))
    assert not buffer
    return received


@pytest.mark.parametrize("error", [*ERRORS, OSError(2, "gone")], ids=lambda error: type(error).__name__)
def test_errors_keep_all_their_facts(error):
    (received,) = sent(error)
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert received.args == error.args
    assert vars(received) == vars(error)


def test_every_error_that_callers_are_told_of_is_among_them():
    kinds = {
        kind
        for module in (errors, picture_limits)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
    }
    assert kinds - {ServiceError, PictureError} == {type(error) for error in ERRORS}


def test_an_errors_cause_stays_where_it_was():
    """It may hold anything, frames among it."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise InferenceFailedError("outer") from inner
    except InferenceFailedError as error:
        (received,) = sent(Done([error], 0.0, 0.0, 0, 0)).pop().outcomes
    assert str(received) == "outer"
    assert received.__cause__ is None
    assert received.__traceback__ is None


PICTURE = Input(0, 64, 1000)
ARRAY = Input(1, 128, 24, np.dtype("float32"), (2, 3))
PACKED = Input(0, 0, 12, np.dtype([("f0", "<f4", (2,)), ("f1", "<i4")]))
CONFIG = GraphConfig(max_batch_size=3, labels={"OUT": ("a", "b")}, versions=frozenset({1, 3}))
SPEC = TensorSpec("image", "UINT8", (-1, 8, 8, 3))
TRIAL = Trial("int8", 2.5)


@pytest.mark.parametrize(
    "message",
    [
        Load(1, "colors", 2, None),
        Load(1, "simple", 2, CONFIG),
        Load(1, "colors", 2, None, "int8", {"fp16": "it ended"}),
        Trying(1, "int8"),
        Unload(1),
        Run(1, 4, [PICTURE, ARRAY, PACKED], [1.0, 2.0, 3.0]),
        Decoded([PICTURE, ARRAY], [0.1, 0.2]),
        Loaded(1, "refused"),
        Loaded(1, "", Description("a", 1, [SPEC], [SPEC], {}, 8, (1, 2), CUDA, "int8", [TRIAL]), None, {1: 0.01}, 0.5),
    ],
    ids=lambda message: type(message).__name__,
)
def test_orders_and_answers_come_as_they_were_sent(message):
    (received,) = sent(message)
    assert type(received) is type(message)
    assert received == message


def test_manifests_come_as_they_were_sent(tmp_path):
    manifest = toy_bundle(tmp_path).manifest
    decode, loaded = sent(Decode(manifest.pixels, [PICTURE], [1.0]), Loaded(1, "", None, manifest))
    assert loaded.manifest == manifest
    assert decode.pixels == manifest.pixels
    assert decode.pixels.shape == (8, 8, 3)


def test_scores_come_as_they_were_sent():
    scores, tensors = np.array([0.25, 0.75], np.float32), np.zeros((), PACKED.dtype)
    (done,) = sent(Done([scores, tensors, PictureUndecodableError("damaged", "PNG")], 0.1, 0.2, 2, 4, {1: 0.5}))
    np.testing.assert_array_equal(done.outcomes[0], scores)
    assert done.outcomes[0].dtype == np.float32
    assert done.outcomes[1].dtype == PACKED.dtype
    assert done.outcomes[2].detected_format == "PNG"
    assert done[1:] == (0.1, 0.2, 2, 4, {1: 0.5})


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 400), min_size=1))
def test_frames_come_whole_and_in_order_however_they_are_cut(messages, cuts):
    stream = b"".join(map(pack, messages))
    buffer, received, at = bytearray(), [], 0
    for turn in range(len(stream)):
        if at >= len(stream):
            break
        part = stream[at : at + cuts[turn % len(cuts)]]
        at += len(part)
        buffer += part
        received += unpacked(buffer)
    assert received == messages
    assert not buffer


def test_what_is_not_whole_yet_is_kept():
    frame = pack("message")
    for length in range(len(frame)):
        buffer = bytearray(frame[:length])
        assert list(unpacked(buffer)) == []
        assert buffer == frame[:length]


@pytest.mark.parametrize(
    "device",
    [
        Device("CPUExecutionProvider"),
        Device(TENSORRT, {TENSORRT: {"trt_engine_cache_path": "/cache"}}),
        Device(CUDA, {CUDA: {"enable_cuda_graph": "1"}}, 4),
    ],
)
def test_settings_survive_the_command_line(device):
    settings = WorkerSettings(
        models="/my models/ä",
        variant="fp16",
        device=device,
        buckets=(1, 2, 4),
        max_batch_size=128,
        max_picture_bytes=1000,
        max_picture_pixels=2000,
        log_format="json",
        log_level="info",
        role="run",
        thread_count=3,
        require_signature="/keys.pem",
    )
    assert AS_JSON.validate_json(AS_JSON.dump_json(settings).decode()) == settings
