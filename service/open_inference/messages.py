"""Answers of the domain → messages of the Open Inference Protocol. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taxon.inference import model_config_pb2 as config_pb
from taxon.inference import open_inference_service_pb2 as pb
from taxon.service.models.config_pbtxt import BACKEND, PLATFORM
from taxon.service.models.model import Model
from taxon.service.open_inference.inference import Inferred
from taxon.service.open_inference.parameters import WantedOutput
from taxon.service.open_inference.tensors import framed, to_raw
from taxon.service.open_inference.top_classes import classified
from taxon.service.runtime.description import GRAPH_FILE, Description
from taxon.service.runtime.device import CPU
from taxon.service.runtime.tensor_types import BYTES, OF_NUMPY, TensorSpec
from taxon.service.telemetry.statistics import Figures

Tensor = pb.ModelMetadataResponse.TensorMetadata
NOTHING = pb.StatisticDuration(count=0, ns=0)


def tensor_metadata(specs: Sequence[TensorSpec]) -> list[Tensor]:
    """The tensors of a model. Of an input that may be sent in two ways, the first is named."""
    return [Tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in _first(specs)]


def _first(specs: Sequence[TensorSpec]) -> Iterable[TensorSpec]:
    """Of each name."""
    return reversed({spec.name: spec for spec in reversed(specs)}.values())


def infer_response(
    request_id: str, description: Description, inferred: Inferred, wanted: Sequence[WantedOutput]
) -> pb.ModelInferResponse:
    """The response to one request. Outputs are always raw: some clients read nothing else.

    Raises:
        FieldInvalidError: Classes are asked for of an output that has none.
    """
    response = pb.ModelInferResponse(model_name=description.name, model_version=str(description.version), id=request_id)
    for output in wanted:
        spec, values = description.outputs[output.index], inferred.outputs[output.index]
        if output.class_count:
            batched = description.max_batch_size > 0
            rows = values if batched else values.reshape(1, -1)
            shape, elements = classified(output.path, rows, output.class_count, description.labels.get(spec.name, ()))
            response.outputs.add(name=spec.name, datatype=BYTES, shape=shape if batched else shape[1:])
            response.raw_output_contents.append(framed(elements))
        else:
            response.outputs.add(name=spec.name, datatype=OF_NUMPY[values.dtype.name], shape=values.shape)
            response.raw_output_contents.append(to_raw(values))
    return response


def model_statistics(model: Model, figures: Figures) -> pb.ModelStatistics:
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
            cache_hit=NOTHING,
            cache_miss=NOTHING,
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=NOTHING,
                compute_infer=_duration(round(figures.run_counts[size]), figures.run_s[size]),
                compute_output=NOTHING,
            )
            for size in sorted(figures.run_counts)
        ],
    )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))


def to_data_type(datatype: str) -> str:
    """The `DataType` for the protocol's datatype."""
    return "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"


def model_config(description: Description, max_queued_count: int, max_call_s: float) -> config_pb.ModelConfig:
    """The reply of `ModelConfig`.

    Args:
        description: The model.
        max_queued_count: Permits of the server.
        max_call_s: Ceiling of a call's time in seconds.
    """
    skip = 1 if description.max_batch_size else 0
    formats: Mapping[str, Any] = description.formats
    kind = "KIND_CPU" if description.provider == CPU else "KIND_GPU"
    batching = config_pb.ModelDynamicBatching(
        preferred_batch_size=description.buckets,
        default_queue_policy=config_pb.ModelQueuePolicy(
            default_timeout_microseconds=round(max_call_s * 1e6),
            allow_timeout_override=True,
            max_queue_size=max_queued_count,
        ),
    )
    return config_pb.ModelConfig(
        name=description.name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=config_pb.ModelVersionPolicy(all=config_pb.ModelVersionPolicy.All()),
        max_batch_size=description.max_batch_size,
        dynamic_batching=batching if description.max_batch_size else None,
        input=[
            config_pb.ModelInput(
                name=spec.name,
                data_type=to_data_type(spec.datatype),
                format=formats.get(spec.name, 0),
                dims=spec.shape[skip:],
            )
            for spec in _first(description.inputs)
        ],
        output=[
            config_pb.ModelOutput(
                name=spec.name,
                data_type=to_data_type(spec.datatype),
                dims=spec.shape[skip:],
                label_filename="labels.txt" if description.labels.get(spec.name) else "",
            )
            for spec in description.outputs
        ],
        instance_group=[config_pb.ModelInstanceGroup(name=description.name, count=1, kind=kind)],
        default_model_filename=GRAPH_FILE,
        parameters={
            "execution_provider": config_pb.ModelParameter(string_value=description.provider),
            "variant": config_pb.ModelParameter(string_value=description.variant),
        },
    )
