"""Tensors of the Open Inference Protocol ↔ NumPy arrays. Pure: protobuf messages and arrays, no models, no waiting.

Knows datatypes, framing and sizes, and refuses what does not add up before it allocates anything. Does not know
what a model's tensors mean.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.inference.open_inference_service_pb2 import InferTensorContents, ModelInferRequest
from taxon.service.errors import FieldInvalidError, UnsupportedError, cut
from taxon.service.runtime.tensor_types import BYTES, DATATYPES, TensorSpec

LENGTH_BYTES = 4

Tensor = NDArray[Any] | tuple[bytes, ...]
"""An array, or of BYTES the elements in row-major order."""


def shown(text: str) -> str:
    """A caller's text, quoted and cut."""
    return repr(cut(text))


def read_inputs(request: ModelInferRequest, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The tensors of a request, by name.

    Args:
        request: From the wire.
        specs: Of the model's inputs. A name may occur twice: either datatype will do.

    Raises:
        FieldInvalidError: An input is unknown, repeated or missing; its datatype, shape or size is wrong; or the
            two ways of sending elements are mixed.
        UnsupportedError: An input lies in shared memory.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise FieldInvalidError("raw_input_contents", f"has {len(raw)} entries for {len(request.inputs)} inputs")
    tensors: dict[str, Tensor] = {}
    for index, sent in enumerate(request.inputs):
        path = f"inputs[{index}]"
        if any(key.startswith("shared_memory") for key in sent.parameters):
            raise UnsupportedError(f"{path}: shared memory is not supported; send the elements")
        if sent.name in tensors:
            raise FieldInvalidError(f"{path}.name", f"{shown(sent.name)} was sent twice")
        shape = tuple(sent.shape)
        check_spec(path, sent.name, sent.datatype, shape, specs)
        if not raw:
            tensors[sent.name] = from_contents(path, sent.datatype, shape, sent.contents)
        elif sent.HasField("contents"):
            raise FieldInvalidError(f"{path}.contents", "must be unset if raw_input_contents is used")
        else:
            tensors[sent.name] = from_raw(f"raw_input_contents[{index}]", sent.datatype, shape, raw[index])
    if missing := sorted({spec.name for spec in specs} - tensors.keys()):
        raise FieldInvalidError("inputs", f"{missing} must be sent too")
    return tensors


def check_spec(path: str, name: str, datatype: str, shape: tuple[int, ...], specs: Sequence[TensorSpec]) -> None:
    """Compares what was sent with what the model takes.

    Raises:
        FieldInvalidError: They differ, or a length is not positive.
    """
    named = [spec for spec in specs if spec.name == name]
    if not named:
        raise FieldInvalidError(
            f"{path}.name", f"{shown(name)} is not an input; there is {sorted({spec.name for spec in specs})}"
        )
    typed = [spec for spec in named if spec.datatype == datatype]
    if not typed:
        wanted = " or ".join(spec.datatype for spec in named)
        raise FieldInvalidError(f"{path}.datatype", f"must be {wanted}, not {shown(datatype)}")
    wanted_shape = typed[0].shape
    if len(shape) != len(wanted_shape):
        raise FieldInvalidError(f"{path}.shape", f"must be {list(wanted_shape)}, not of {len(shape)} axes")
    if any(length < 1 or wanted not in (-1, length) for length, wanted in zip(shape, wanted_shape, strict=True)):
        raise FieldInvalidError(
            f"{path}.shape", f"must be {list(wanted_shape)} with positive lengths, not {list(shape)}"
        )


def from_raw(path: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> Tensor:
    """Reads one entry of `raw_input_contents`. Arrays are views of `raw`, read-only.

    Raises:
        FieldInvalidError: The number of bytes is not the shape's, a length prefix lies, or a BOOL is neither 0 nor 1.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return _unframed(path, count, raw)
    dtype = np.dtype(DATATYPES[datatype][0]).newbyteorder("<")
    if len(raw) != count * dtype.itemsize:
        raise FieldInvalidError(path, f"has {len(raw)} bytes, {datatype} {list(shape)} takes {count * dtype.itemsize}")
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise FieldInvalidError(path, "a BOOL must be a byte of 0 or 1")
    return np.frombuffer(raw, dtype).reshape(shape)


def _unframed(path: str, count: int, raw: bytes) -> tuple[bytes, ...]:
    elements: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(elements) == count:
            raise FieldInvalidError(path, f"has {len(raw) - start} bytes after its {count} elements")
        end = start + LENGTH_BYTES
        if end > len(raw):
            raise FieldInvalidError(path, f"ends within the length of element {len(elements)}")
        (length,) = struct.unpack_from("<I", raw, start)
        start, end = end, end + length
        if end > len(raw):
            raise FieldInvalidError(path, f"element {len(elements)} claims {length} bytes, {len(raw) - start} are left")
        elements.append(raw[start:end])
        start = end
    if len(elements) != count:
        raise FieldInvalidError(path, f"has {len(elements)} elements, the shape says {count}")
    return tuple(elements)


def from_contents(path: str, datatype: str, shape: tuple[int, ...], contents: InferTensorContents) -> Tensor:
    """Reads typed contents.

    Raises:
        FieldInvalidError: Elements lie in another type's field, are too many or too few, or out of range.
    """
    field = "bytes_contents" if datatype == BYTES else DATATYPES[datatype][1]
    path = f"{path}.contents"
    if not field:
        raise FieldInvalidError(path, f"{datatype} has no typed contents; use raw_input_contents")
    if wrong := [used.name for used, _ in contents.ListFields() if used.name != field]:
        raise FieldInvalidError(f"{path}.{wrong[0]}", f"must be empty: {datatype} belongs into {field}")
    elements = getattr(contents, field)
    if len(elements) != math.prod(shape):
        raise FieldInvalidError(f"{path}.{field}", f"has {len(elements)} elements, the shape says {math.prod(shape)}")
    if datatype == BYTES:
        return tuple(elements)
    dtype = np.dtype(DATATYPES[datatype][0])
    # The four narrow types travel in 32 bits.
    wide = np.array(elements, np.int64) if field in ("int_contents", "uint_contents") else np.array(elements, dtype)
    if wide.dtype != dtype and not (np.iinfo(dtype).min <= wide.min() and wide.max() <= np.iinfo(dtype).max):
        raise FieldInvalidError(f"{path}.{field}", f"has values that {datatype} cannot hold")
    return wide.astype(dtype, copy=False).reshape(shape)


def to_raw(array: NDArray[Any]) -> bytes:
    """An entry of `raw_output_contents`: row-major and little-endian."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def framed(elements: Iterable[bytes]) -> bytes:
    """BYTES as an entry of `raw_output_contents`: each element with its length before it."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))
