"""Messages and pictures that nobody means well with, in chunks of a thousand, and what came of each.

A chunk runs in a process of its own; its seed makes it again.
"""

import contextlib
import resource
import warnings
from collections import Counter
from io import BytesIO
from typing import NamedTuple

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureError
from taxon.bundle.pixels import decode
from taxon.inference import open_inference_service_pb2 as oip
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.api import statuses
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import model_admin_service_pb2 as admin_pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from taxon.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from tests.fakes import FEATURE_COUNT, picture
from tests.service.open_inference.test_fuzz import ANY_REQUEST, INT32, OTHER_REQUEST, TEXT, damaged

CHUNK = 1000
MIB = 2**20
MAY_BE_TOLD = {(row.code.value[0], row.reason) for row in statuses.TABLE.values()} - {
    # Nothing that these models can be given is the server's fault.
    (grpc.StatusCode.INTERNAL.value[0], "INFERENCE_FAILED"),
}
NAMES = ("colors", "numbers")
SPECS = (
    PixelSpec(resize=8, crop=(8, 8)),
    PixelSpec(resize=(5, 9), crop=(3, 7), resampler="simd"),
    PixelSpec(resize=16, crop=(16, 16), scaled_decoding=True),
)
MOST_PIXELS = 100_000


class Where(NamedTuple):
    """A server, and a key that opens all of it."""

    address: str
    admin_address: str
    key: str


def noise(width, height, form, **options):
    encoded = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    one = Image.fromarray(pixels)
    if options.pop("frames", False):
        options |= {"save_all": True, "append_images": [one.transpose(Image.Transpose.FLIP_TOP_BOTTOM)] * 3}
    one.convert(options.pop("mode", "RGB")).save(encoded, form, **options)
    return encoded.getvalue()


SOUND = [
    noise(16, 12, "JPEG"),
    noise(33, 17, "JPEG", progressive=True),
    noise(16, 16, "JPEG", mode="CMYK"),
    noise(9, 9, "JPEG", mode="L", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    noise(16, 12, "PNG"),
    noise(16, 12, "PNG", mode="P"),
    noise(16, 12, "PNG", mode="RGBA", frames=True),
    noise(16, 12, "GIF"),
    noise(16, 12, "GIF", frames=True),
    noise(16, 12, "WEBP"),
    noise(16, 12, "WEBP", lossless=True),
    noise(16, 12, "WEBP", frames=True),
]
SIZES = st.sampled_from([b"\xff\xff", b"\0\0", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\x01"])
"""What headers may say of widths, heights and lengths."""


@st.composite
def hostile_pictures(draw):
    """A sound picture with other bytes in places, cut off, joined with another, or no picture at all."""
    match draw(st.sampled_from(["patched"] * 6 + ["cut", "joined", "doubled", "bytes", "sound"])):
        case "patched":
            encoded = bytearray(draw(st.sampled_from(SOUND)))
            for _ in range(draw(st.integers(1, 6))):
                end = draw(st.sampled_from([40, 200, len(encoded)]))
                at = draw(st.integers(0, min(end, len(encoded)) - 1))
                patch = draw(st.one_of(SIZES, st.binary(min_size=1, max_size=4)))
                encoded[at : at + len(patch)] = patch
            return bytes(encoded)
        case "cut":
            encoded = draw(st.sampled_from(SOUND))
            return encoded[: draw(st.integers(0, len(encoded)))]
        case "joined":
            first, second = draw(st.sampled_from(SOUND)), draw(st.sampled_from(SOUND))
            return first[: draw(st.integers(0, len(first)))] + second[draw(st.integers(0, len(second))) :]
        case "doubled":  # a part comes again and again: segments, chunks, frames, scans
            encoded = draw(st.sampled_from(SOUND))
            start = draw(st.integers(0, len(encoded) - 1))
            end = draw(st.integers(start, len(encoded)))
            return encoded[:start] + encoded[start:end] * draw(st.integers(2, 40)) + encoded[end:]
        case "bytes":
            magic = draw(
                st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBP"])
            )
            return magic + draw(st.binary(max_size=200))
        case _:
            return draw(st.sampled_from(SOUND))


MODEL_NAME = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES), st.just(""), TEXT)
FEATURES = st.builds(
    pb.Features,
    values=st.one_of(
        st.lists(st.floats(width=32), max_size=9),
        st.lists(st.floats(-9, 9, width=32), min_size=FEATURE_COUNT, max_size=FEATURE_COUNT),
    ),
)
OPTIONS = {
    "model_version": st.one_of(st.sampled_from(["", "1", "2", "stable"]), TEXT),
    "max_results": st.one_of(st.integers(0, 3), INT32),
    "min_score": st.floats(width=32),
    "routing_key": TEXT,
}


@st.composite
def classify_requests(draw):
    """Half of them have sound options, and most name a model that takes what they bring: much else would hide it."""
    options = draw(st.one_of(st.just({}), st.fixed_dictionaries({}, optional=OPTIONS)))
    request = pb.ClassifyRequest(**options)
    match draw(st.sampled_from(["image"] * 4 + ["features"] * 2 + ["neither"])):
        case "image":
            request.image, request.model_name = draw(hostile_pictures()), "colors"
        case "features":
            request.features.CopyFrom(draw(FEATURES))
            request.model_name = "numbers"
    if draw(st.integers(0, 3)) == 0:
        request.model_name = draw(MODEL_NAME)
    return request


BATCHES = st.builds(pb.BatchClassifyRequest, requests=st.lists(classify_requests(), max_size=6))
VERSION = st.one_of(st.sampled_from(["1", "2", "stable", ""]), TEXT)
ON_MODEL = {"model_name": MODEL_NAME}
ON_VERSION = ON_MODEL | {"model_version": VERSION}
TRIAL = ON_VERSION | {"share": st.one_of(st.floats(0, 1), st.floats())}
NOBODYS = TEXT.filter(lambda name: name not in NAMES)  # or nobody would be served for the rest of the chunk
ADMIN_REQUESTS = st.one_of(
    st.builds(admin_pb.LoadModelRequest, **ON_MODEL),
    st.builds(admin_pb.UnloadModelRequest, model_name=NOBODYS),
    st.builds(admin_pb.GetTrafficRequest, **ON_MODEL),
    st.builds(admin_pb.SetDefaultVersionRequest, reason=TEXT, **ON_VERSION),
    st.builds(admin_pb.SetLabelRequest, label=TEXT, **ON_VERSION),
    st.builds(admin_pb.DeleteLabelRequest, label=TEXT, **ON_MODEL),
    st.builds(admin_pb.SetCanaryRequest, **TRIAL),
    st.builds(admin_pb.SetShadowRequest, **TRIAL),
    st.builds(admin_pb.ClearTrialsRequest, roles=st.lists(st.integers(0, 9), max_size=3), **ON_MODEL),
    st.builds(admin_pb.ListQuarantinedVersionsRequest, page_size=INT32, page_token=TEXT),
)
METHODS = {
    "taxon.v1.ClassificationService": ["Classify", "BatchClassify", "ListModels", "GetModel", "Unknown"],
    "inference.GRPCInferenceService": ["ModelInfer", "ModelStreamInfer", "ModelMetadata", "RepositoryIndex", ""],
    "grpc.health.v1.Health": ["Check"],
    "no.such.Service": ["Classify"],
}
PATHS = [f"/{service}/{method}" for service, methods in METHODS.items() for method in methods]


def header_values(key):
    """Of `authorization`: right, nearly right, and nothing of the kind."""
    visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
    return st.one_of(
        st.just(f"Bearer {key}"),
        st.integers(0, len(key)).map(lambda end: f"Bearer {key[:end]}"),
        st.sampled_from(
            [f"bearer {key}", f"Bearer  {key}", f"Bearer {key} ", f"Basic {key}", key, "Bearer ", "", "x" * 3000]
        ),
        visible.map(lambda text: f"Bearer {text}"),
        visible,
    )


def headers(key):
    odd = st.sampled_from(["routing-key", "grpc-previous-rpc-attempts", "traceparent", "x-forwarded-for"])
    value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
    some = st.lists(st.one_of(st.tuples(odd, value), st.tuples(st.just("x-bin"), st.binary(max_size=99))), max_size=4)
    keys = st.lists(header_values(key).map(lambda text: ("authorization", text)), max_size=3)
    return st.tuples(keys, some).map(lambda parts: [*parts[0], *parts[1]])


def told(status):
    """What a caller is told, which must be a row of the table of statuses."""
    info = error_details_pb2.ErrorInfo()
    reasons = [info.reason for detail in status.details if detail.Unpack(info) and info.domain == statuses.DOMAIN]
    assert len(reasons) == 1, status
    assert (status.code, reasons[0]) in MAY_BE_TOLD, status
    return reasons[0]


def refusal(error, method=""):
    """The same of a call. Of methods that there are not gRPC tells, of services that are not watched its protocol of
    health.
    """
    status = rpc_status.from_call(error)
    if status is None:
        nobodys = method.endswith(("/Unknown", "/")) or "no.such" in method
        expected = {"UNIMPLEMENTED"} if nobodys else {"NOT_FOUND"} if "health" in method else set()
        assert error.code().name in expected, f"{method}: {error.code()}: {error.details()}"
        return error.code().name
    return told(status)


def chunk(kind, number, count, where):
    """Makes and sends so many.

    Returns:
        What came of them, counted, and the most memory that this process has had so far, in bytes.
    """
    seen = Counter()
    with contextlib.ExitStack() as stack:
        strategy, act = KINDS[kind](where, stack)

        # A failing example is shown as it is: to shrink it, take its seed.
        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def one(case):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seen[act(case)] += 1

        try:
            one()
        except Exception as error:  # noqa: BLE001 - exceptions of gRPC cannot be sent to another process
            raise AssertionError(f"{kind}, seed {number}: {error!r}"[:4000]) from None
    return seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pixels(_, __):
    def act(case):
        encoded, spec = case
        try:
            array = decode(encoded, spec, Limits(max_pixels=MOST_PIXELS))
        except PictureError as error:
            return type(error).__name__
        assert array.shape == (*spec.shape[:2], 3)
        return "OK"

    return st.tuples(hostile_pictures(), st.sampled_from(SPECS)), act


def opened(stack, address):
    return stack.enter_context(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))


def calls(stub, metadata, look=lambda _: "OK"):
    """Sends a message to the method that is named as its type is; `look` says what the answer is."""

    def act(request):
        try:
            answer = getattr(stub, type(request).__name__.removesuffix("Request"))(
                request, timeout=60, metadata=metadata
            )
        except grpc.RpcError as error:
            return refusal(error)
        return look(answer)

    return act


def classify(where, stack):
    stub = ClassificationServiceStub(opened(stack, where.address))
    return classify_requests(), calls(stub, bearer(where))


def batch(where, stack):
    def look(answer):
        return ", ".join(sorted({told(one.error) if one.HasField("error") else "OK" for one in answer.results}))

    stub = ClassificationServiceStub(opened(stack, where.address))
    return BATCHES, calls(stub, bearer(where), look)


def infer(where, stack):
    stub = GRPCInferenceServiceStub(opened(stack, where.address))
    return st.one_of(ANY_REQUEST, damaged(), damaged(), OTHER_REQUEST), calls(stub, bearer(where))


def admin(where, stack):
    return ADMIN_REQUESTS, calls(ModelAdminServiceStub(opened(stack, where.admin_address)), bearer(where))


def raw(where, stack):
    """Any bytes to any method, by anybody."""
    channel, administration = opened(stack, where.address), opened(stack, where.admin_address)
    good = pb.ClassifyRequest(image=picture()).SerializeToString()
    infers = oip.ModelInferRequest(model_name="colors").SerializeToString()
    bodies = st.one_of(
        st.binary(max_size=120), st.sampled_from([b"", good, infers]), st.binary(max_size=9).map(good.__add__)
    )
    paths = st.sampled_from([*PATHS, "/taxon.v1.ModelAdminService/SetCanary", "/taxon.v1.ModelAdminService/GetTraffic"])

    def act(case):
        path, body, metadata = case
        through = administration if "Admin" in path else channel
        # The least that serves both: a stream of one answer is read to its end.
        method = through.unary_stream(path) if path.endswith("StreamInfer") else through.unary_unary(path)
        try:
            answer = method(body, timeout=60, metadata=metadata)
            if path.endswith("StreamInfer"):
                list(answer)
        except grpc.RpcError as error:
            return refusal(error, path)
        return "OK"

    return st.tuples(paths, bodies, headers(where.key)), act


def bearer(where):
    return (("authorization", f"Bearer {where.key}"),)


KINDS = {"pixels": pixels, "classify": classify, "batch": batch, "infer": infer, "admin": admin, "raw": raw}
