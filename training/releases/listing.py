"""What a model repository holds: every version with its figures and its lineage, as plain values."""

from pathlib import Path
from typing import Any

from taxon.bundle import store, traffic
from taxon.bundle.manifest import BundleError, Manifest


def entries(root: Path, name: str) -> list[dict[str, Any]]:
    """One plain dictionary per version, newest first; a damaged bundle has only `error` beside its place.

    Raises:
        BundleError: What is declared of its traffic cannot be read.
    """
    declared = traffic.read(root, name)
    trials = {"canary": declared.canary, "shadow": declared.shadow}
    rows = []
    for version in reversed(store.versions(root, name)):
        row: dict[str, Any] = {
            "name": name,
            "version": version,
            "labels": [label for label, labelled in declared.labels.items() if labelled == version],
            "trials": {role: trial.share for role, trial in trials.items() if trial and trial.version == version},
            "error": None,
        }
        try:
            row |= _figures(store.read(root, name, version).manifest)
        except BundleError as error:
            row["error"] = str(error)
        rows.append(row)
    return rows


def _figures(manifest: Manifest) -> dict[str, Any]:
    calibration, provenance = manifest.calibration, manifest.provenance
    return {
        "classes": len(manifest.labels),
        "accuracy": manifest.metrics.get("accuracy"),
        "calibration_error": None if calibration is None else calibration.ece,
        "temperature": None if calibration is None else calibration.temperature,
        "unknown_threshold": manifest.thresholds.unknown,
        "unknown_by": manifest.thresholds.unknown_by,
        "largest_score_difference": manifest.metrics.get("parity_max_score_difference"),
        "variants": {
            variant.precision: {"accuracy": variant.accuracy, "latency_ms": variant.latency_ms}
            for variant in manifest.variants
        },
        "created": provenance.created,
        "run_id": provenance.run_id,
        "data_digest": provenance.data_digest,
        "git": provenance.git,
        "seed": provenance.seed,
        "exporter": provenance.exporter,
        "parents": list(provenance.parents),
        "libraries": provenance.libraries,
    }
