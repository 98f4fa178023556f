"""Messages ↔ arrays: round trips for every datatype, and every way in which a message can lie."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taxon.inference.open_inference_service_pb2 import InferParameter, ModelInferRequest
from taxon.service.errors import MAX_SHOWN, FieldInvalidError, UnsupportedError
from taxon.service.open_inference.tensors import BYTES, DATATYPES, TensorSpec, framed, read_inputs, shown, to_raw

Input = ModelInferRequest.InferInputTensor
IMAGE = (TensorSpec("image", "UINT8", (-1, 2, 2, 3)), TensorSpec("image", BYTES, (-1,)))
SUM = (TensorSpec("INPUT0", "INT32", (-1, 4)), TensorSpec("INPUT1", "INT32", (-1, 4)))


def request(*inputs: Input, raw: list[bytes] | None = None) -> ModelInferRequest:
    return ModelInferRequest(inputs=inputs, raw_input_contents=raw or [])


def one(datatype, shape, raw=None, **contents):
    sent = Input(name="x", datatype=datatype, shape=shape)
    if contents:
        for field, values in contents.items():
            getattr(sent.contents, field).extend(values)
    return request(sent, raw=None if raw is None else [raw])


def spec_of(datatype, axis_count):
    return [TensorSpec("x", datatype, (-1,) * axis_count)]


@st.composite
def arrays(draw, datatypes=tuple(DATATYPES)):
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    return datatype, draw(hnp.arrays(DATATYPES[datatype][0], shape))


@given(arrays())
def test_raw_round_trip(sent):
    datatype, array = sent
    read = read_inputs(one(datatype, array.shape, to_raw(array)), spec_of(datatype, array.ndim))["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(arrays(tuple(datatype for datatype, (_, field) in DATATYPES.items() if field)))
def test_typed_round_trip(sent):
    datatype, array = sent
    message = one(datatype, array.shape, **{DATATYPES[datatype][1]: array.ravel().tolist()})
    read = read_inputs(message, spec_of(datatype, array.ndim))["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_bytes_round_trip_both_ways(elements):
    specs = spec_of(BYTES, 1)
    assert read_inputs(one(BYTES, [len(elements)], framed(elements)), specs)["x"] == tuple(elements)
    assert read_inputs(one(BYTES, [len(elements)], bytes_contents=elements), specs)["x"] == tuple(elements)


@given(st.binary(max_size=64), st.integers(1, 4))
def test_any_bytes_are_read_whole_or_refused(raw, count):
    """Whatever the framing claims, nothing beyond the message is read and nothing is left over."""
    try:
        read = read_inputs(one(BYTES, [count], raw), spec_of(BYTES, 1))["x"]
    except FieldInvalidError:
        return
    assert len(read) == count
    assert framed(read) == raw


def four(name="INPUT0", datatype="INT32", shape=(1, 4), **contents):
    sent = Input(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(sent.contents, field).extend(values)
    return sent


RAW = bytes(16)
ROWS = {
    "wrong datatype": (request(four(datatype="FP32"), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].datatype"),
    "unknown datatype": (request(four(datatype="INT"), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].datatype"),
    "too few axes": (request(four(shape=[4]), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].shape"),
    "too many axes": (request(four(shape=[1] * 70), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].shape"),
    "wrong length": (request(four(shape=[1, 5]), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].shape"),
    "no items": (request(four(shape=[0, 4]), four("INPUT1"), raw=[b"", RAW]), SUM, "inputs[0].shape"),
    "negative": (request(four(shape=[-1, 4]), four("INPUT1"), raw=[RAW, RAW]), SUM, "inputs[0].shape"),
    "negative, positive product": (one("UINT8", [-2, -2], bytes(4)), spec_of("UINT8", 2), "inputs[0].shape"),
    "product overflows": (one("UINT8", [2**32, 2**32], b""), spec_of("UINT8", 2), "raw_input_contents[0]"),
    "product overflows typed": (
        one("INT32", [2**62, 4], int_contents=[1]),
        spec_of("INT32", 2),
        "inputs[0].contents.int_contents",
    ),
    "too few bytes": (request(four(), four("INPUT1"), raw=[RAW[:15], RAW]), SUM, "raw_input_contents[0]"),
    "too many bytes": (request(four(), four("INPUT1"), raw=[RAW, RAW + b"0"]), SUM, "raw_input_contents[1]"),
    "raw and typed": (
        request(four(int_contents=[1, 2, 3, 4]), four("INPUT1"), raw=[RAW, RAW]),
        SUM,
        "inputs[0].contents",
    ),
    "raw for one of two": (request(four(), four("INPUT1"), raw=[RAW]), SUM, "raw_input_contents"),
    "raw without inputs": (request(raw=[RAW]), SUM, "raw_input_contents"),
    "missing": (request(four(), raw=[RAW]), SUM, "inputs"),
    "none": (request(), SUM, "inputs"),
    "unknown": (request(four(), four("INPUT2"), raw=[RAW, RAW]), SUM, "inputs[1].name"),
    "twice": (request(four(), four(), raw=[RAW, RAW]), SUM, "inputs[1].name"),
    "no contents": (request(four(), four("INPUT1")), SUM, "inputs[0].contents.int_contents"),
    "too few values": (
        request(four(int_contents=[1, 2, 3]), four("INPUT1")),
        SUM,
        "inputs[0].contents.int_contents",
    ),
    "another type's field": (
        request(four(fp32_contents=[1, 2, 3, 4]), four("INPUT1")),
        SUM,
        "inputs[0].contents.fp32_contents",
    ),
    "out of range": (one("INT8", [1], int_contents=[128]), spec_of("INT8", 1), "inputs[0].contents.int_contents"),
    "out of range, unsigned": (
        one("UINT8", [1], uint_contents=[256]),
        spec_of("UINT8", 1),
        "inputs[0].contents.uint_contents",
    ),
    "FP16 typed": (one("FP16", [1], fp32_contents=[1.0]), spec_of("FP16", 1), "inputs[0].contents"),
    "BOOL of 2": (one("BOOL", [2], b"\x01\x02"), spec_of("BOOL", 1), "raw_input_contents[0]"),
    "picture of another size": (
        request(Input(name="image", datatype="UINT8", shape=[1, 2, 3, 3]), raw=[bytes(18)]),
        IMAGE,
        "inputs[0].shape",
    ),
    "length prefix too long": (one(BYTES, [1], b"\x05\0\0\0abcd"), spec_of(BYTES, 1), "raw_input_contents[0]"),
    "length prefix of 4 GiB": (one(BYTES, [1], b"\xff\xff\xff\xffabcd"), spec_of(BYTES, 1), "raw_input_contents[0]"),
    "length prefix cut": (one(BYTES, [1], b"\x05\0"), spec_of(BYTES, 1), "raw_input_contents[0]"),
    "length prefix too short": (one(BYTES, [1], b"\x01\0\0\0abcdefgh"), spec_of(BYTES, 1), "raw_input_contents[0]"),
    "too few elements": (one(BYTES, [2], framed([b"a"])), spec_of(BYTES, 1), "raw_input_contents[0]"),
    "too many elements": (one(BYTES, [1], framed([b"a", b"b"])), spec_of(BYTES, 1), "raw_input_contents[0]"),
}


@pytest.mark.parametrize(("message", "specs", "field"), ROWS.values(), ids=ROWS)
def test_refuses(message, specs, field):
    with pytest.raises(FieldInvalidError) as refused:
        read_inputs(message, specs)
    assert refused.value.field == field


def test_either_datatype_of_an_input_will_do():
    raw = read_inputs(request(Input(name="image", datatype="UINT8", shape=[1, 2, 2, 3]), raw=[bytes(12)]), IMAGE)
    assert raw["image"].shape == (1, 2, 2, 3)
    encoded = Input(name="image", datatype=BYTES, shape=[1])
    encoded.contents.bytes_contents.append(b"jpeg")
    assert read_inputs(request(encoded), IMAGE)["image"] == (b"jpeg",)


def test_shared_memory_is_refused_as_unsupported():
    sent = four()
    sent.parameters["shared_memory_region"].CopyFrom(InferParameter(string_param="region"))
    with pytest.raises(UnsupportedError):
        read_inputs(request(sent), SUM)


def test_errors_do_not_grow_with_the_request():
    """They travel in headers, whose size is limited."""
    with pytest.raises(FieldInvalidError) as refused:
        read_inputs(request(four("N" * 1_000_000)), SUM)
    assert len(str(refused.value)) < 200
    assert len(shown("x" * 1000)) < MAX_SHOWN + 5


def test_raw_is_little_endian():
    big = np.array([1, -2], ">i4")
    assert to_raw(big) == struct.pack("<ii", 1, -2)
    assert math.prod(big.shape) * 4 == len(to_raw(big))
