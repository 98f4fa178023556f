"""The datatypes of the Open Inference Protocol, and what one tensor of a model must be. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

BYTES = "BYTES"
# Protocol datatype → (NumPy dtype, field of InferTensorContents). BF16 is missing because NumPy has no such type.
DATATYPES: Mapping[str, tuple[str, str]] = {
    "BOOL": ("bool", "bool_contents"),
    "UINT8": ("uint8", "uint_contents"),
    "UINT16": ("uint16", "uint_contents"),
    "UINT32": ("uint32", "uint_contents"),
    "UINT64": ("uint64", "uint64_contents"),
    "INT8": ("int8", "int_contents"),
    "INT16": ("int16", "int_contents"),
    "INT32": ("int32", "int_contents"),
    "INT64": ("int64", "int64_contents"),
    "FP16": ("float16", ""),
    "FP32": ("float32", "fp32_contents"),
    "FP64": ("float64", "fp64_contents"),
}
OF_NUMPY = {dtype: datatype for datatype, (dtype, _) in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What one tensor of a model must be."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """With the batch axis; -1 is any length."""
