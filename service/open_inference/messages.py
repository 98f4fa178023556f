"""Answers of the domain → messages of the Open Inference Protocol. Pure."""

from collections.abc import Sequence

from taxon.inference import open_inference_service_pb2 as pb
from taxon.service.models.repository import Served
from taxon.service.open_inference.inference import Inferred
from taxon.service.open_inference.parameters import WantedOutput
from taxon.service.open_inference.tensors import BYTES, OF_NUMPY, TensorSpec, framed, to_raw
from taxon.service.open_inference.top_classes import classified
from taxon.service.runtime.config_pbtxt import Described
from taxon.service.runtime.graph_proof import ServedGraph
from taxon.service.telemetry.statistics import Figures

Tensor = pb.ModelMetadataResponse.TensorMetadata


def tensor_metadata(specs: Sequence[TensorSpec]) -> list[Tensor]:
    """The tensors of a model. Of an input that may be sent in two ways, the first is named."""
    first = {spec.name: spec for spec in reversed(specs)}
    return [Tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in reversed(first.values())]


def infer_response(
    request_id: str, described: Described, inferred: Inferred, wanted: Sequence[WantedOutput]
) -> pb.ModelInferResponse:
    """The response to one request. Outputs are always raw: some clients read nothing else.

    Raises:
        FieldInvalidError: Classes are asked for of an output that has none.
    """
    response = pb.ModelInferResponse(model_name=described.name, model_version=str(described.version), id=request_id)
    for output in wanted:
        spec, values = described.outputs[output.index], inferred.outputs[output.index]
        if output.class_count:
            batched = described.max_batch_size > 0
            rows = values if batched else values.reshape(1, -1)
            shape, elements = classified(output.path, rows, output.class_count, described.labels.get(spec.name, ()))
            response.outputs.add(name=spec.name, datatype=BYTES, shape=shape if batched else shape[1:])
            response.raw_output_contents.append(framed(elements))
        else:
            response.outputs.add(name=spec.name, datatype=OF_NUMPY[values.dtype.name], shape=values.shape)
            response.raw_output_contents.append(to_raw(values))
    return response


def model_statistics(model: Served | ServedGraph, figures: Figures) -> pb.ModelStatistics:
    """The figures of one version."""
    count = figures.success_count
    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=figures.last_ms,
        inference_count=figures.inference_count,
        execution_count=round(sum(figures.run_counts.values())),
        inference_stats=pb.InferStatistics(
            success=_duration(count, figures.success_s),
            fail=_duration(figures.fail_count, figures.fail_s),
            queue=_duration(count, figures.queue_s),
            compute_input=_duration(count, figures.input_s),
            compute_infer=_duration(count, figures.infer_s),
            compute_output=_duration(count, figures.output_s),
            cache_hit=_duration(0, 0.0),
            cache_miss=_duration(0, 0.0),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(0, 0.0),
                compute_infer=_duration(round(figures.run_counts[size]), figures.run_s[size]),
                compute_output=_duration(0, 0.0),
            )
            for size in sorted(figures.run_counts)
        ],
    )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
