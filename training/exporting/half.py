"""The fp16 variant: half the weight bytes, for CUDA. Normalisation, scores and familiarity stay in fp32."""

from pathlib import Path

import onnx
from onnxruntime.transformers import float16
from onnxruntime.transformers.onnx_model import OnnxModel

from taxon.bundle.manifest import GRAPH_OUTPUT
from taxon.training.exporting import graph
from taxon.training.exporting.graph import GraphError

HEAVY = ("Conv", "MatMul", "Gemm")


def write_half(source: Path, target: Path) -> None:
    """Converts an fp32 graph. Inputs, outputs and metadata stay what they are.

    Raises:
        GraphError: The converter fails or gives a graph that is not valid.
    """
    model = onnx.load(source)
    contract = {entry.key: entry.value for entry in model.metadata_props}
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    blocked = [node.name for node in _before_the_network(model)]
    blocked += [node.name for node in model.graph.node if GRAPH_OUTPUT in node.output] + graph.judging(model)
    try:
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=blocked)
    except Exception as error:  # the converter raises anything on operators it does not know
        raise GraphError(f"the conversion to fp16 failed ({type(error).__name__}): {error}") from error
    _drop_repeated_casts(half)
    _drop_round_trips(half)
    ordered = OnnxModel(half)
    ordered.topological_sort()  # the converter puts its casts at the end
    onnx.save(ordered.model, target)
    graph.tidy(target, contract)


def _before_the_network(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Cast, layout and normalisation: 255 times a scale needs more than eleven bits."""
    nodes = list(model.graph.node)
    first = next((index for index, node in enumerate(nodes) if node.op_type in HEAVY), 0)
    return nodes[:first]


def _drop_repeated_casts(model: onnx.ModelProto) -> None:
    """Keeps one cast of a value that two blocked nodes take: the converter makes one for each, of the same name."""
    made: set[str] = set()
    for node in [node for node in model.graph.node if node.op_type == "Cast"]:
        if node.output[0] in made:
            model.graph.node.remove(node)
        made.add(node.output[0])


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Joins blocked neighbours directly: the converter sends every value between them through fp16 and back, and
    the outputs too.
    """
    graph_ = model.graph
    full = {entry.name for entry in graph_.initializer if entry.data_type == onnx.TensorProto.FLOAT}
    casts = {node.output[0]: node for node in graph_.node if node.op_type == "Cast"}
    sources: dict[str, str] = {}
    for name, node in casts.items():
        (given,) = node.input
        if _target(node) != onnx.TensorProto.FLOAT:
            continue
        if given in full:
            sources[name] = given
        elif given in casts and _target(casts[given]) == onnx.TensorProto.FLOAT16:
            sources[name] = casts[given].input[0]
    outputs = [entry.name for entry in graph_.output]
    for output in sources.keys() & set(outputs):  # its maker takes over the name
        renamed = sources.pop(output)
        sources = {name: output if source == renamed else source for name, source in sources.items()}
        for node in graph_.node:
            node.output[:] = [output if name == renamed else name for name in node.output if name != output]
            node.input[:] = [output if name == renamed else name for name in node.input]
    for node in graph_.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
    used = {name for node in graph_.node for name in node.input}.union(outputs)
    while dead := [node for node in graph_.node if not used.intersection(node.output)]:
        for node in dead:
            graph_.node.remove(node)
        used = {name for node in graph_.node for name in node.input}.union(outputs)


def _target(cast: onnx.NodeProto) -> int:
    return next(attribute.i for attribute in cast.attribute if attribute.name == "to")
