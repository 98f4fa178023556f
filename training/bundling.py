"""From a trained classifier to a published bundle: reference scores, graph, gate, goldens, manifest, publication.

Knows the order of the steps and that nothing is published unless the gate passes. Does not know where the
classifier came from: a run, a foreign checkpoint or a fusion all arrive as a `Candidate`.
"""

import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from taxon.bundle import store
from taxon.bundle.manifest import Golden, ImageInput, Manifest, PixelSpec, Provenance, Variant
from taxon.bundle.store import Bundle
from training import graph, parity
from training.errors import TrainingError
from training.graph import GraphError, Served, Strategy, Task
from training.parity import Parity, ParityError

GRAPH_FILE = "model.onnx"
GOLDEN_COUNT = 16
GOLDEN_TOLERANCE = 5e-3
"""Allows the CUDA provider's TF32 (ten bits of mantissa); docs/bundle_format.md has the measurement."""
MEASURED_AGAIN = 0.005
"""How far the accuracy may lie from what training measured: mixed precision on a GPU moves single pictures."""
LIBRARIES = ("taxon", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow")


class ExportError(TrainingError):
    """A classifier that must not be published."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained classifier with all that a bundle says of it."""

    network: nn.Module
    """float32 `[N, C, H, W]`, normalised → logits `[N, K]`; in evaluation mode."""
    labels: tuple[str, ...]
    pixels: PixelSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[Path, ...]
    """Validation pictures."""
    answers: tuple[tuple[str, ...], ...]
    """Their true labels: one each, or for a multi-label task any number."""
    run_id: str
    data_digest: str
    task: Task = "single_label"
    expected_accuracy: float | None = None
    """On the same pictures, as training measured it."""
    seed: int | None = None
    git: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Export:
    """A published bundle and how it was proven."""

    bundle: Bundle
    strategy: Strategy
    attempts: tuple[str, ...]
    """What failed before `strategy`, one sentence each."""
    parities: tuple[Parity, ...]


def publish(
    candidate: Candidate,
    root: Path,
    name: str,
    *,
    ladder: Sequence[Strategy] = graph.LADDER,
    tolerance: float | None = None,
    write_graph: Callable[[nn.Module, tuple[int, int, int], Path, Strategy], None] = graph.write_graph,
) -> Export:
    """Exports, proves and publishes `<root>/<name>/<next version>`.

    Args:
        candidate: What to publish.
        root: The model repository.
        name: The model's name.
        ladder: The exporter strategies, tried in turn until one passes the gate.
        tolerance: Largest score difference on every provider; each provider's own by default.
        write_graph: The exporter.

    Raises:
        ExportError: No strategy passed the gate, or the classifier is not the one that training measured.
        ParityError: A validation file cannot be read.
        BundleError: What was staged is not a bundle.
        OSError: The repository is not writable or full.
    """
    files, targets = candidate.files, target_matrix(candidate.answers, candidate.labels)
    logits = parity.reference_logits(candidate.network, files, candidate.pixels, candidate.mean, candidate.std)
    if logits.shape[1] != len(candidate.labels):
        raise ExportError(f"the network answers {logits.shape[1]} scores for {len(candidate.labels)} labels")
    reference = parity.scores_of(logits, candidate.task)
    check_measured_again(parity.accuracy(reference, targets, candidate.task), candidate.expected_accuracy, len(files))
    served = Served(candidate.network, candidate.mean, candidate.std, candidate.task)
    with store.staging(root, name) as staged:
        draft = draft_manifest(candidate, name, copy_goldens(candidate, reference, staged))
        strategy, attempts, parities = _climb(
            ladder, write_graph, served, candidate, reference, draft, staged / GRAPH_FILE, tolerance
        )
        replay(staged, draft)
        metrics = {
            **candidate.metrics,
            "accuracy": parities[-1].accuracy or 0.0,
            "parity_file_count": len(files),
            "parity_top1_agreement": min(result.top1_agreement for result in parities),
            "parity_max_score_difference": max(result.max_score_difference for result in parities),
        }
        report = {
            "metrics": metrics,
            "strategy": dataclasses.asdict(strategy),
            "failed_strategies": attempts,
            "batch_sizes": parity.BATCH_SIZES,
            "parity": [dataclasses.asdict(result) for result in parities],
        }
        write_report(staged, "metrics.json", report)
        variant = Variant(file=GRAPH_FILE, precision="fp32", accuracy=parities[-1].accuracy)
        bundle = store.publish(staged, draft.model_copy(update={"metrics": metrics, "variants": (variant,)}))
    return Export(bundle, strategy, tuple(attempts), tuple(parities))


def _climb(
    ladder: Sequence[Strategy],
    write_graph: Callable[[nn.Module, tuple[int, int, int], Path, Strategy], None],
    served: Served,
    candidate: Candidate,
    reference: NDArray[np.float32],
    draft: Manifest,
    path: Path,
    tolerance: float | None,
) -> tuple[Strategy, list[str], list[Parity]]:
    """Tries the strategies in turn until one passes the gate on every provider."""
    attempts: list[str] = []
    for strategy in ladder:
        try:
            write_graph(served, candidate.pixels.shape, path, strategy)
            graph.tidy(path, draft.contract())
            parities = gate(path, candidate, reference, tolerance)
        except (GraphError, ParityError) as error:
            attempts.append(f"{strategy.name}: {error}")
            continue
        faults = [f"{result.provider}: {fault}" for result in parities for fault in result.faults]
        if not faults:
            return strategy, attempts, parities
        attempts.append(f"{strategy.name}: {'; '.join(faults)}")
    raise ExportError(f"nothing was published: no exported graph answers as torch does. {' | '.join(attempts)}")


def gate(
    path: Path, candidate: Candidate, reference: NDArray[np.float32], tolerance: float | None = None
) -> list[Parity]:
    """Runs a graph over the whole validation set on every provider of this machine, the CPU last.

    The labels are read back from the graph, so that a lost order shows in the accuracy.
    """
    written = json.loads(graph.metadata(path)["taxon.labels"])
    targets = (target_matrix(candidate.answers, candidate.labels), target_matrix(candidate.answers, written))
    results = []
    for provider in parity.providers():
        scores = parity.graph_scores(parity.open_session(path, provider), candidate.files, candidate.pixels)
        results.append(parity.compare(provider, candidate.files, reference, scores, candidate.task, targets, tolerance))
    return results


def target_matrix(answers: Sequence[Sequence[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels are true of each picture: bool `[N, K]`.

    Raises:
        ExportError: There are no answers, or one is not among the labels.
    """
    if not answers:
        raise ExportError("there are no validation pictures: the gate needs some")
    if missing := sorted({label for answer in answers for label in answer} - set(labels)):
        raise ExportError(f"validation pictures are labelled {missing[:5]}, which the classifier does not know")
    targets = np.zeros((len(answers), len(labels)), dtype=np.bool_)
    for row, answer in zip(targets, answers, strict=True):
        row[[labels.index(label) for label in answer]] = True
    return targets


def check_measured_again(measured: float, expected: float | None, file_count: int) -> None:
    """Compares the network's accuracy with what training measured on the same files. A checkpoint whose labels,
    weights, mean or pixels were changed after training agrees with its own graph, but not with its past.

    Raises:
        ExportError: They differ by more than half a point, or by more than one picture if that is more.
    """
    if expected is not None and abs(measured - expected) > max(MEASURED_AGAIN, 1.0 / file_count) + 1e-9:
        raise ExportError(
            f"training measured an accuracy of {expected:.2%} on the validation pictures, the checkpoint now gives "
            f"{measured:.2%}: its labels, weights or preprocessing are not those that were trained"
        )


def copy_goldens(candidate: Candidate, reference: NDArray[np.float32], staged: Path) -> tuple[Golden, ...]:
    """Copies validation pictures, spread over the classes, with torch's scores for them.

    Of each class the least certain come first: where two scores are near each other, a fault shows most.
    """
    (staged / "golden").mkdir()
    chosen = spread_over_classes(candidate.answers, reference.max(axis=1), GOLDEN_COUNT)
    goldens = []
    for number, index in enumerate(chosen):
        source = candidate.files[index]
        file = f"golden/{number:02d}{source.suffix.lower()}"
        shutil.copyfile(source, staged / file)
        scores = tuple(float(score) for score in reference[index])
        goldens.append(Golden(file=file, scores=scores, tolerance=GOLDEN_TOLERANCE))
    return tuple(goldens)


def spread_over_classes(answers: Sequence[tuple[str, ...]], certainty: NDArray[np.float32], count: int) -> list[int]:
    """Indices of at most `count` answers, going round the classes, in each from the least certain on."""
    queues: dict[tuple[str, ...], list[int]] = {}
    for index in np.argsort(certainty, kind="stable"):
        queues.setdefault(answers[index], []).append(int(index))
    turns = sorted((place, label) for label, queue in queues.items() for place in range(len(queue)))
    if len(queues) > count:  # evenly over the alphabet rather than its beginning
        step = len(queues) / count
        turns = [turns[int(number * step)] for number in range(count)]
    return [queues[label][place] for place, label in turns[:count]]


def draft_manifest(candidate: Candidate, name: str, goldens: tuple[Golden, ...]) -> Manifest:
    """The manifest as far as it is known before the graph is: `version` and `files` are the store's to fill."""
    return Manifest(
        name=name,
        version=1,
        task=candidate.task,
        labels=candidate.labels,
        input=ImageInput(shape=candidate.pixels.shape),
        pixels=candidate.pixels,
        golden=goldens,
        variants=(Variant(file=GRAPH_FILE, precision="fp32"),),
        provenance=Provenance(
            run_id=candidate.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            data_digest=candidate.data_digest,
            seed=candidate.seed,
            git=candidate.git,
            recipe=dict(candidate.recipe),
            libraries=library_versions(),
        ),
    )


def replay(folder: Path, manifest: Manifest) -> None:
    """Does what the service does at load: decodes the goldens as they lie in the folder and compares the scores.

    Raises:
        ExportError: A golden answers differently.
    """
    if manifest.pixels is None:
        raise ExportError("only bundles of pictures can be replayed here")
    session = parity.open_session(folder / GRAPH_FILE)
    files = [folder / golden.file for golden in manifest.golden]
    scores = parity.graph_scores(session, files, manifest.pixels, (1,))
    for golden, answer in zip(manifest.golden, scores, strict=True):
        if not (difference := float(np.abs(answer - np.array(golden.scores)).max())) <= golden.tolerance:
            raise ExportError(f"{golden.file} answers differently in the bundle, by {difference:.1e}")


def write_report(staged: Path, file: str, content: Any) -> None:
    """Writes `content` as JSON into the bundle's `report/`."""
    (staged / "report").mkdir(exist_ok=True)
    (staged / "report" / file).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """The installed versions of what decides about scores."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue  # of the two builds of ONNX Runtime one is installed
    return versions
