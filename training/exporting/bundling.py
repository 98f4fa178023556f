"""From a trained classifier to a published bundle: reference scores, graph, gate, goldens, manifest, publication.

Knows the order of the steps and that nothing is published unless the gate passes. Does not know where the
classifier came from: a run, a foreign checkpoint or a fusion all arrive as a `Candidate`.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon import extras
from taxon.bundle import atomic_files, store
from taxon.bundle.answers import parted
from taxon.bundle.manifest import Golden, Manifest, MapSpec, Provenance, Variant, check_name, contract
from taxon.bundle.signing import Sign
from taxon.bundle.store import Bundle
from taxon.training.exporting import (
    calibrate,
    cuda_options,
    eight_bits,
    familiarity,
    gate,
    goldens,
    graph,
    map_faithfulness,
    maps,
    parity,
    spread,
    tf32,
    thumbnails,
    variants,
)
from taxon.training.exporting.calibrate import UNCALIBRATED, Calibrated
from taxon.training.exporting.candidate import Candidate, ExportError, check_measured_again, target_matrix
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.gate import Attempt, Passed, WriteGraph
from taxon.training.exporting.graph import Served, ServedNumbers, Strategy
from taxon.training.exporting.judge import Judged
from taxon.training.exporting.parity import Parity
from taxon.training.exporting.variants import Dropped, Kept
from taxon.training.loop import metrics

GRAPH_FILE = "model.onnx"
MAKERS = {"fp16": variants.half_precision, "int8": eight_bits.eight_bits}
LIBRARIES = (
    *("taxon", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"),
    *("numpy", "pillow", "simplejpeg", "cykooz-resizer"),
)
"""What decides about scores. Of the two builds of ONNX Runtime one is installed; a resizer is not everywhere."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be chosen about an export."""

    calibration: bool = True
    """Fits a temperature and puts it into the graph."""
    unknown_coverage: float | None = None
    """Share of validation pictures that keep an answer; None for no `unknown` threshold."""
    maps: bool = False
    """Class activation maps, if the network ends in a global pooling and a linear layer."""
    thumbnail_count: int = 0
    """Training pictures that leave with the bundle, at most; there are none without maps."""
    tolerance: float | None = None
    """Largest score difference on every provider; each provider's own by default."""
    precisions: tuple[str, ...] = ()
    """Lighter variants to try: `fp16`, `int8`."""
    budget: Budget = dataclasses.field(default_factory=Budget)
    """What a variant may lose."""
    sign: Sign | None = None
    """Signs the manifest."""


@dataclass(frozen=True, slots=True)
class Export:
    """A published bundle and how it was proven."""

    bundle: Bundle
    strategy: Strategy
    attempts: tuple[Attempt, ...]
    """What failed before `strategy`."""
    parities: tuple[Parity, ...]
    notes: tuple[str, ...]
    """Of the validation pictures, of what the `unknown` threshold is measured on, and of each lighter variant."""


def publish(
    candidate: Candidate,
    root: Path,
    name: str,
    settings: Settings = Settings(),
    *,
    ladder: Sequence[Strategy] = graph.LADDER,
    write_graph: WriteGraph = graph.write_graph,
    check_logits: Callable[[NDArray[np.float32]], None] = lambda _: None,
) -> Export:
    """Exports, proves and publishes `<root>/<name>/<next version>`.

    Args:
        candidate: What to publish.
        root: The model repository.
        name: The model's name.
        settings: What may be chosen about it.
        ladder: The exporter strategies, tried in turn until one passes the gate.
        write_graph: The exporter.
        check_logits: Refuses what the network answers: float32 `[pictures, K]`.

    Raises:
        ExportError: No strategy passed the gate, or the classifier is not the one that training measured.
        ParityError: A validation file cannot be read.
        BundleError: What was staged is not a bundle.
        OSError: The repository is not writable or full.
    """
    atomic_files.check_writable(root / check_name(name))
    targets, label_count = target_matrix(candidate.answers, candidate.labels), len(candidate.labels)
    coverage, notes = settings.unknown_coverage, list(candidate.notes)
    if coverage is not None:
        candidate, note = familiarity.judged(candidate)
        notes.append(note)
    if candidate.task == "multi_label":
        coverage = None  # none of several labels is an answer; the note says so
    answered = parity.reference_logits(
        candidate.network, candidate.files, candidate.pixels, candidate.mean, candidate.std
    )
    logits, _ = parted(answered, label_count)
    if (given := answered.shape[1] - isinstance(candidate.network, Judged)) != label_count:
        raise ExportError(f"the network answers {given} scores for {label_count} labels")
    check_logits(logits)
    measured = metrics.accuracy(parity.scores_of(logits, candidate.task), targets, candidate.task)
    check_measured_again(measured, candidate.expected_accuracy, len(candidate.files))
    calibrated = UNCALIBRATED
    if settings.calibration:
        calibrated = calibrate.calibrate(logits, targets, candidate.task)
    reference = parity.rows_of(answered, label_count, candidate.task, calibrated.temperature)
    scores, _ = parted(reference, label_count)
    if coverage is not None:
        calibrated = calibrate.with_unknown(calibrated, reference, targets, coverage)
    mapped = None
    if settings.maps:
        mapped, note = maps.mapped(candidate)
        notes.append(note)
    served_as = ServedNumbers if candidate.pixels is None else Served
    served = served_as(
        mapped or candidate.network, candidate.mean, candidate.std, candidate.task, calibrated.temperature
    )
    with store.staging(root, name) as staged:
        passed = gate.climb(
            candidate,
            served,
            reference,
            contract(candidate.labels, candidate.pixels, candidate.task, candidate.features),
            staged / GRAPH_FILE,
            ladder=ladder,
            tolerance=settings.tolerance,
            write_graph=write_graph,
        )
        accuracy = passed.parities[-1].accuracy
        lighter = [
            MAKERS[precision](staged / GRAPH_FILE, candidate, scores, settings.budget)
            for precision in settings.precisions
        ]
        kept = [result for result in lighter if isinstance(result, Kept)]
        tolerances = goldens.choose(candidate.answers, scores, [parted(result.rows, label_count)[0] for result in kept])
        winners = scores.argmax(axis=1)
        golden_maps = maps.of_pictures(mapped, candidate, [*tolerances], winners) if mapped else {}
        lighter = [
            variants.as_served(result, reference, [*tolerances], label_count, coverage)
            if isinstance(result, Kept)
            else result
            for result in lighter
        ]
        kept = [result for result in lighter if isinstance(result, Kept)]
        if mapped:
            kept = [
                variants.with_map_tolerance(result, staged, mapped, candidate, golden_maps, winners) for result in kept
            ]
        dropped = [result for result in lighter if isinstance(result, Dropped)]
        for result in dropped:
            (staged / f"model.{result.precision}.onnx").unlink(missing_ok=True)
        proofs = goldens.copy(candidate, reference, tolerances, golden_maps, staged)
        draft = draft_manifest(
            candidate, name, proofs, calibrated, maps.write(mapped, golden_maps, staged) if mapped else None
        )
        draft = draft.model_copy(update={"distributions": spread.measured(candidate, reference)})
        if settings.thumbnail_count:
            held, note = None, "no thumbnails: there are no maps, by whose features they would be found"
            if mapped:
                held, note = thumbnails.write(candidate, staged, staged / GRAPH_FILE, settings.thumbnail_count)
            draft = draft.model_copy(update={"thumbnails": held})
            notes.append(note)
        pictures = variants.timed_pictures(candidate)
        full = Variant(
            file=GRAPH_FILE,
            precision="fp32",
            accuracy=accuracy,
            latency_ms=variants.latencies([staged / GRAPH_FILE], pictures, parity.providers()[0])[0],
            provider_options=tf32.provider_options(candidate, reference, tolerances, calibrated.temperature)
            or maps.provider_options(mapped, candidate, golden_maps, winners),
        )
        graphs = [
            cuda_options.tuned(variant, staged, pictures) for variant in (full, *(result.variant for result in kept))
        ]
        draft = with_results(draft, candidate, passed, graphs)
        goldens.replay(staged, draft)
        contents = report(draft, passed, dropped)
        if mapped:
            faithful = map_faithfulness.measured(staged / GRAPH_FILE, mapped, candidate, [*golden_maps], winners)
            contents["map_faithfulness"] = dataclasses.asdict(faithful)
            notes.append(faithful.sentence)
        write_report(staged, "metrics.json", contents)
        if draft.thumbnails:
            (staged / "report" / thumbnails.CARD).write_text(thumbnails.card(name, draft.thumbnails), encoding="utf-8")
        bundle = store.publish(staged, draft, settings.sign)
    notes += [
        result.note if isinstance(result, Kept) else f"no {result.precision}: {result.reason}" for result in lighter
    ]
    return Export(bundle, passed.strategy, passed.attempts, passed.parities, tuple(notes))


def with_results(draft: Manifest, candidate: Candidate, passed: Passed, graphs: Sequence[Variant]) -> Manifest:
    """The draft with what the gate measured."""
    on_cpu = passed.parities[-1]
    figures = {
        **candidate.metrics,
        "parity_file_count": float(len(candidate.files)),
        "parity_top1_agreement": min(result.top1_agreement for result in passed.parities),
        "parity_max_score_difference": max(result.max_score_difference for result in passed.parities),
        "accuracy": on_cpu.accuracy,
    }
    if on_cpu.max_map_difference is not None:
        figures["parity_max_map_difference"] = max(result.max_map_difference or 0.0 for result in passed.parities)
    if draft.calibration is not None and draft.calibration.ece is not None:
        figures["ece"] = draft.calibration.ece
    exporter = f"{passed.strategy.name}, opset {passed.strategy.opset}"
    return draft.model_copy(
        update={
            "metrics": figures,
            "variants": tuple(graphs),
            "provenance": draft.provenance.model_copy(update={"exporter": exporter}),
        }
    )


def report(manifest: Manifest, passed: Passed, dropped: Sequence[Dropped]) -> dict[str, Any]:
    """What `report/metrics.json` holds beyond the manifest: every figure of the gate."""
    return {
        "metrics": manifest.metrics,
        "calibration": manifest.calibration and manifest.calibration.model_dump(),
        "strategy": dataclasses.asdict(passed.strategy),
        "failed_strategies": [dataclasses.asdict(attempt) for attempt in passed.attempts],
        "variants": {variant.precision: variant.model_dump() for variant in manifest.variants},
        "dropped_variants": {result.precision: result.reason for result in dropped},
        "batch_sizes": parity.batch_sizes(passed.parities[-1].file_count),
        "parity": [dataclasses.asdict(result) for result in passed.parities],
    }


def draft_manifest(
    candidate: Candidate,
    name: str,
    goldens: tuple[Golden, ...],
    calibrated: Calibrated,
    map_spec: MapSpec | None = None,
) -> Manifest:
    """The manifest as far as it is known before the graph is: `version` and `files` are the store's to fill."""
    return Manifest(
        name=name,
        version=1,
        task=candidate.task,
        labels=candidate.labels,
        input=candidate.input,
        pixels=candidate.pixels,
        thresholds=calibrated.thresholds,
        calibration=calibrated.calibration,
        maps=map_spec,
        golden=goldens,
        variants=(Variant(file=GRAPH_FILE, precision="fp32"),),
        provenance=Provenance(
            run_id=candidate.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            data_digest=candidate.data_digest,
            seed=candidate.seed,
            git=candidate.git,
            recipe=dict(candidate.recipe),
            libraries=extras.versions(LIBRARIES),
            parents=candidate.parents,
            privacy=candidate.privacy,
        ),
    )


def write_report(staged: Path, file: str, content: Any) -> None:
    """Writes `content` as JSON into the bundle's `report/`."""
    (staged / "report").mkdir(exist_ok=True)
    (staged / "report" / file).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
