"""The int8 variant: static QDQ with 8-bit activations (unsigned) and weights (signed, per channel), for CPUs.

Its integer sums are the same on every processor, see `requantise`; else it would be proven on one and wrong on another.

Knows how to make such a graph and which of its nodes suffer most. Whether it is good and fast enough to publish is
decided in `eight_bits`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    qdq_loss_debug,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from taxon.training.exporting import graph
from taxon.training.exporting.examples import Array
from taxon.training.exporting.graph import GraphError
from taxon.training.exporting.requantise import Floats, requantise

SQNR_PICTURES = 8
ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which operators compute in eight bits; everything else stays float."""

    name: str
    operators: tuple[str, ...]


PLANS = (
    Plan("convolutions and products", ("Conv", "MatMul", "Gemm", *ACTIVATIONS)),
    Plan("products", ("MatMul", "Gemm")),
)
"""Additions and poolings stay float: quantised, they made ResNets a quarter slower (docs/experiments/precision.md)."""


def prepare(source: Path, target: Path) -> None:
    """Folds and infers shapes, which the quantiser needs.

    Raises:
        GraphError: ONNX Runtime's preprocessing fails.
    """
    try:
        with _quiet():
            quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime raises any kind
        raise GraphError(f"the graph cannot be prepared for int8 ({type(error).__name__}): {error}") from error


def write_int8(
    prepared: Path,
    target: Path,
    pictures: Array,
    plan: Plan,
    excluded: Sequence[str] = (),
    means: Mapping[str, Floats] = MappingProxyType({}),
) -> int:
    """Quantises a prepared graph.

    Args:
        prepared: From `prepare`.
        target: The file to write.
        pictures: uint8 `[N, H, W, C]` or float32 `[N, F]` of training: the ranges of the activations are theirs.
        plan: Which operators.
        excluded: Names of nodes that stay float, beside those of the familiarity.
        means: From `requantise.input_means`, to correct biases by.

    Returns:
        How many nodes compute in eight bits.

    Raises:
        GraphError: The quantiser fails.
    """
    model = onnx.load(prepared)
    contract = {entry.key: entry.value for entry in model.metadata_props}
    in_float = {*excluded, *graph.judging(model)}
    count = sum(
        node.op_type in plan.operators and node.op_type not in ACTIVATIONS and node.name not in in_float
        for node in model.graph.node
    )
    try:
        with _quiet():
            quantize_static(
                str(prepared),
                str(target),
                _Examples(prepared, pictures),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 7 bits, where `requantise` finds no scales by channel
                op_types_to_quantize=list(plan.operators),
                nodes_to_exclude=sorted(in_float),
            )
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime raises any kind
        raise GraphError(f"the quantiser failed ({type(error).__name__}): {error}") from error
    requantise(prepared, target, means)
    graph.tidy(target, contract)
    return count


def most_sensitive(prepared: Path, quantised: Path, pictures: Array, plan: Plan) -> list[str]:
    """The nodes of a plan, those first that add most noise on the way through the network.

    Noise is measured between the float and the int8 graph, relative to the signal (the inverse of the SQNR that
    ONNX Runtime's `qdq_loss_debug` gives in decibel): behind a node, minus before it.
    """
    chosen = pictures[:SQNR_PICTURES]
    with _quiet():
        activations = []
        for path in (quantised, prepared):
            extended = path.with_suffix(".all.onnx")
            qdq_loss_debug.modify_model_output_intermediate_tensors(str(path), str(extended))
            activations.append(qdq_loss_debug.collect_activations(str(extended), _Examples(extended, chosen)))
            extended.unlink()
        matched = qdq_loss_debug.create_activation_matching(*activations)
        errors = qdq_loss_debug.compute_activation_error(matched)
    noise = {name: float(10 ** (-np.mean(values["xmodel_err"]) / 10)) for name, values in errors.items()}
    added = _added_noise(onnx.load(prepared), plan, noise)
    return sorted(added, key=added.__getitem__, reverse=True)


def _added_noise(model: onnx.ModelProto, plan: Plan, noise: Mapping[str, float]) -> dict[str, float]:
    consumers = {name: node for node in model.graph.node for name in node.input}
    added, never = {}, set(graph.judging(model))
    for node in model.graph.node:
        if node.op_type not in plan.operators or node.op_type in ACTIVATIONS or node.name in never:
            continue
        behind = node.output[0]
        follower = consumers.get(behind)
        if behind not in noise and follower is not None and follower.op_type in ACTIVATIONS:
            behind = follower.output[0]  # the quantiser merges an activation into what stands before it
        before = max((noise[name] for name in node.input if name in noise), default=0.0)
        added[node.name] = noise.get(behind, before) - before
    return added


class _Examples(CalibrationDataReader):  # type: ignore[misc] # a class without types
    def __init__(self, path: Path, arrays: Array) -> None:
        (taken,) = onnx.load(path).graph.input
        self._batches: Iterator[dict[str, Any]] = iter([{taken.name: array[None]} for array in arrays])

    def get_next(self) -> dict[str, Any] | None:
        """The next input of the graph, as the quantiser asks for it."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells its progress to the root logger and to the standard output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(None):
            yield
    finally:
        logging.disable(before)
