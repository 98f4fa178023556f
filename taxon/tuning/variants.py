"""Which variants of a model may be served under a floor of accuracy. Pure."""

from taxon.bundle.manifest import Manifest
from taxon.v1 import classification_service_pb2 as pb

FULL = "fp32"


class FloorError(ValueError):
    """No variant is known to be as accurate as that."""


def choices(manifest: Manifest, min_accuracy: float | None, served: pb.Model) -> tuple[str | None, list[str]]:
    """Which variant to begin with, None for the service's own choice, and which others to try: those that are as
    accurate as the floor, as the manifest has recorded it, and that were not slower than fp32 when the service looked.

    Args:
        manifest: Of the model.
        min_accuracy: The floor, in [0, 1]; None: any will do.
        served: What the service says of it when it chooses by itself.

    Raises:
        FloorError: See there.
    """
    recorded = {str(variant.precision): _accuracy(manifest, variant.precision) for variant in manifest.variants}
    kept = [
        name for name, seen in recorded.items() if min_accuracy is None or (seen is not None and seen >= min_accuracy)
    ]
    if not kept:
        known = ", ".join(f"{name} {'not recorded' if seen is None else seen}" for name, seen in recorded.items())
        raise FloorError(f"no variant of {manifest.name} {manifest.version} has an accuracy of {min_accuracy}: {known}")
    first = served.variant if served.variant in kept else kept[0]
    slower = {trial.variant for trial in served.variant_trials if trial.speedup < 1.0}
    others = [name for name in kept if name != first and name not in slower]
    return None if len(kept) == len(recorded) else first, others


def _accuracy(manifest: Manifest, precision: str) -> float | None:
    own = next(variant.accuracy for variant in manifest.variants if variant.precision == precision)
    return manifest.metrics.get("accuracy") if own is None and precision == FULL else own
