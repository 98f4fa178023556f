"""A checkpoint as Flower's records, and back."""

import dataclasses
import json

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from taxon.bundle.manifest import PixelSpec
from taxon.training.runs.checkpoint import Checkpoint

FACTS = ("model", "head", "task", "labels", "features", "mean", "std", "run_id")
"""What the server compares with its base, but for the pixels."""


def to_records(checkpoint: Checkpoint) -> RecordDict:
    facts = {name: getattr(checkpoint, name) for name in FACTS}
    facts["pixels"] = checkpoint.pixels and checkpoint.pixels.model_dump()
    return RecordDict(
        {
            "arrays": ArrayRecord(dict(checkpoint.state)),
            "metrics": MetricRecord({"num-examples": checkpoint.sample_count}),
            "facts": ConfigRecord({"json": json.dumps(facts)}),
        }
    )


def to_checkpoint(records: RecordDict, base: Checkpoint) -> Checkpoint:
    """Raises:
    ValueError: The facts are none of a checkpoint.
    """
    try:
        facts = json.loads(records["facts"]["json"])
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        pixels = facts["pixels"] and PixelSpec.model_validate(facts["pixels"])
        facts = {name: facts[name] for name in FACTS} | {"pixels": pixels}
        state, count = records["arrays"].to_torch_state_dict(), records["metrics"]["num-examples"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the reply holds no checkpoint: {error!r}") from error
    return dataclasses.replace(base, **facts, state=dict(state), sample_count=count, metrics={})
