"""The parity gate: does a graph answer as the network did, from encoded bytes to scores?

Two roads that share only the decoder (`taxon.bundle.pixels`, which is the product's single one): torch with a
normalisation of its own, and ONNX Runtime with whatever the graph holds. Knows nothing of bundles or runs.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from taxon.bundle import answers
from taxon.bundle.class_maps import Head, of_places
from taxon.bundle.manifest import PLACES_OUTPUT, PixelSpec
from taxon.bundle.picture_limits import PictureError
from taxon.mistaken import first_line
from taxon.training.config import Task
from taxon.training.errors import TrainingError
from taxon.training.exporting.examples import Array, Example, name_of, to_array
from taxon.training.exporting.providers import CPU, CUDA, works
from taxon.training.loop.augment import normalised
from taxon.training.loop.metrics import accuracy

BATCH_SIZES = (1, 2, 3, 7, 32, 64)
REFERENCE_BATCH = 32
TOLERANCES = {CPU: 1e-4, CUDA: 1e-3}
"""Largest score difference by provider. TF32 is off during the check, so what remains is the order of sums."""
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {CPU: {}, CUDA: {"use_tf32": "0"}}


class ParityError(TrainingError):
    """The check itself cannot be made: a file cannot be read, or a graph does not run."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How well one graph on one provider agrees with torch."""

    provider: str
    file_count: int
    top1_agreement: float
    """Share of files with the same decision; a tie within the tolerance counts as the same."""
    max_score_difference: float
    worst_file: str
    reference_accuracy: float
    accuracy: float
    tolerance: float
    faults: tuple[str, ...]
    """Why the graph must not be published; empty if it may."""
    max_map_difference: float | None = None
    """As a share of each picture's largest value; None: the graph has no maps."""


def batch_sizes(count: int) -> tuple[int, ...]:
    """The batch sizes that a graph must run at: those that `count` examples fill, and the largest, which repeats
    them. So a short list costs one run of the largest size more than itself, whatever the network.
    """
    return tuple(size for size in BATCH_SIZES if size <= count or size == BATCH_SIZES[-1])


def decoded_batches(
    files: Sequence[Example], spec: PixelSpec | None, sizes: Sequence[int]
) -> Iterator[tuple[list[int], Array]]:
    """Decodes all files in batches whose sizes go round `sizes`, and goes on from the first file until every
    size has occurred. A list that must be repeated is decoded once.

    Yields:
        The indices into `files`, and uint8 `[N, H, W, C]`, or float32 `[N, F]` of rows.

    Raises:
        ParityError: A file cannot be read or decoded; it is named.
    """

    def array(index: int) -> Array:
        try:
            return to_array(files[index], spec)
        except (OSError, PictureError) as error:
            raise ParityError(f"{files[index]}: {error}") from error

    repeated = len(files) < sum(sizes)
    arrays: dict[int, NDArray[Any]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        start = 0
        for turn, size in enumerate(itertools.cycle(sizes)):
            if start >= len(files) and turn >= len(sizes):
                return
            left = len(files) - start
            count = min(size, left) if left > 0 and turn >= len(sizes) else size
            indices = [index % len(files) for index in range(start, start + count)]
            new = [index for index in dict.fromkeys(indices) if index not in arrays]
            arrays.update(zip(new, pool.map(array, new), strict=True))
            yield indices, np.stack([arrays[index] for index in indices])
            if not repeated:
                arrays.clear()
            start += count


def reference_logits(
    network: nn.Module, files: Sequence[Example], spec: PixelSpec | None, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """What torch answers: float32 `[files, K]` logits of the network in evaluation mode; behind them, from a `Judged`
    one, the familiarity.

    The normalisation is torchvision's (for rows: training's), not the graph's, so that a fault in one does not hide in
    both.

    Raises:
        ParityError: As `decoded_batches`.
    """
    network.eval()
    with torch.inference_mode():
        answered = (network(inputs) for inputs in network_inputs(files, spec, mean, std))
        batches = [torch.cat(answer, dim=1) if isinstance(answer, tuple) else answer for answer in answered]
        logits: NDArray[np.float32] = torch.cat(batches).to(torch.float32).numpy()
    return logits


def network_inputs(
    files: Sequence[Example], spec: PixelSpec | None, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Tensor]:
    """What the network is given, in batches: float32 `[n, C, H, W]` or `[n, F]`, normalised.

    Raises:
        ParityError: As `decoded_batches`.
    """
    for _, arrays in decoded_batches(files, spec, (min(REFERENCE_BATCH, len(files)),)):
        given = torch.from_numpy(arrays)
        if spec is None:
            yield normalised(given, tuple(mean), tuple(std))
        else:
            images = functional.to_dtype(given.movedim(-1, 1), torch.float32, scale=True)
            yield functional.normalize(images, list(mean), list(std))


def scores_of(logits: NDArray[np.float32], task: Task, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax or sigmoid of `logits / temperature`, by the last axis, computed in double precision."""
    scaled = logits.astype(np.float64) / temperature
    scores: NDArray[np.float64] = expit(scaled) if task == "multi_label" else softmax(scaled, axis=-1)
    return scores.astype(np.float32)


def rows_of(logits: NDArray[np.float32], label_count: int, task: Task, temperature: float = 1.0) -> NDArray[np.float32]:
    """What a graph should answer (see `taxon.bundle.answers`) where torch gives these logits, with the familiarity
    behind them or without.
    """
    return np.concatenate([scores_of(logits[:, :label_count], task, temperature), logits[:, label_count:]], axis=1)


def providers() -> list[str]:
    """The providers that work on this machine and that the gate knows, the CPU last."""
    available = onnxruntime.get_available_providers()
    return [provider for provider in available if provider in TOLERANCES and works(provider)]


def open_session(
    path: Path, provider: str = CPU, provider_options: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """A session that runs on `provider` and on nothing else in secret; with the gate's own options by default.

    Raises:
        ParityError: ONNX Runtime refuses the graph or the provider.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # As the service runs it. Of two sessions that take turns, the threads of one would spin on the other's cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # hides that shape operators of a CUDA graph run on the CPU, as they should
    chosen = dict(PROVIDER_OPTIONS[provider] if provider_options is None else provider_options)
    # ONNX Runtime 1.31 crashes, without an exception, when it lays out the convolution of a ViT in fp16 for the CPU.
    without = ["NchwcTransformer"] if ".fp16." in path.name else []
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[(provider, chosen)], disabled_optimizers=without
        )
    except Exception as error:
        raise ParityError(f"ONNX Runtime cannot load {path.name} on {provider}: {first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise ParityError(f"ONNX Runtime gave {session.get_providers()[0]} instead of {provider}")
    return session


def run(session: onnxruntime.InferenceSession, arrays: Array) -> NDArray[np.float32]:
    """uint8 `[N, H, W, C]` or float32 `[N, F]` → float32 rows, as `taxon.bundle.answers` joins them.

    Raises:
        ParityError: The graph does not run at this batch size, or gives another number of rows.
    """
    names = [output.name for output in session.get_outputs() if output.name != PLACES_OUTPUT]
    try:
        rows = answers.joined(session.run(names, {session.get_inputs()[0].name: arrays}))
    except Exception as error:
        raise ParityError(f"the graph fails at batch {len(arrays)}: {first_line(error)}") from error
    if len(rows) != len(arrays):
        raise ParityError(f"the graph gives {len(rows)} rows for a batch of {len(arrays)}")
    return rows


def maps(session: onnxruntime.InferenceSession, arrays: Array, head: Head) -> NDArray[np.float32]:
    """uint8 `[N, H, W, C]` → `class_maps`, float32 `[N, K, rows, columns]`, of a graph that gives places.

    Raises:
        ParityError: The graph does not run.
    """
    try:
        (places,) = session.run([PLACES_OUTPUT], {session.get_inputs()[0].name: arrays})
    except Exception as error:
        raise ParityError(f"the graph gives no places: {first_line(error)}") from error
    return of_places(places, head)


def graph_rows(
    session: onnxruntime.InferenceSession,
    files: Sequence[Example],
    spec: PixelSpec | None,
    sizes: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """What the graph answers, at all batch sizes in turn; those of `batch_sizes` by default.

    Returns:
        float32 `[rows, K]` (`[rows, K + 1]` with the familiarity) with at least as many rows as files; row i belongs
        to file i modulo their number, because a short list goes round until every batch size has run.

    Raises:
        ParityError: As `decoded_batches` and `run`.
    """
    batches = decoded_batches(files, spec, sizes or batch_sizes(len(files)))
    return np.concatenate([run(session, arrays) for _, arrays in batches])


def compare(
    provider: str,
    files: Sequence[Example],
    reference: NDArray[np.float32],
    rows: NDArray[np.float32],
    task: Task,
    targets: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    tolerance: float | None = None,
) -> Parity:
    """Compares two answers for the same files.

    Args:
        provider: Where the graph ran.
        files: The pictures or rows.
        reference: What torch answers, as `rows_of` gives it.
        rows: As `graph_rows` gives them.
        task: For several labels the decision is each label's side of 0.5.
        targets: bool `[files, K]`, the true labels as the checkpoint orders them, and as the graph's own do. A label
            order that was lost on the way shows in nothing but the accuracy.
        tolerance: Largest allowed score difference; the provider's by default.

    Raises:
        ParityError: The graph gives another number of scores.
    """
    tolerance = TOLERANCES[provider] if tolerance is None else tolerance
    if rows.shape[1:] != reference.shape[1:]:
        raise ParityError(f"the graph gives {rows.shape[1:]} scores for a picture, torch gives {reference.shape[1:]}")
    repeated = np.arange(len(rows)) % len(files)
    moved = np.abs(rows.astype(np.float64) - reference[repeated])
    differences = moved.max(axis=1)
    label_count = targets[0].shape[1]
    reference, scores = reference[:, :label_count], rows[:, :label_count]
    worst = int(np.where(np.isfinite(differences), differences, np.inf).argmax())
    file = name_of(files[worst % len(files)])
    agreement = float(same_decision(reference[repeated], scores, task, tolerance).mean())
    faults = []
    if not np.isfinite(rows).all():
        faults.append("scores are not finite")
    if agreement < 1.0:
        faults.append(f"top-1 agreement is {agreement:.2%}")
    if not differences[worst] <= tolerance:
        what = "the familiarity differs" if moved[:, :label_count].max() <= tolerance else "scores differ"
        faults.append(f"{what} by {differences[worst]:.1e} on {file}, {tolerance:.0e} is allowed")
    before, after = accuracy(reference, targets[0], task), accuracy(scores[: len(files)], targets[1], task)
    if abs(before - after) * len(files) > near_ties(reference, task, tolerance) + 0.5:
        faults.append(f"accuracy goes from {before:.2%} to {after:.2%}")
    difference = float(differences[worst])
    return Parity(provider, len(files), agreement, difference, file, before, after, tolerance, tuple(faults))


def same_decision(
    reference: NDArray[np.float32], scores: NDArray[np.float32], task: Task, tolerance: float
) -> NDArray[np.bool_]:
    """Per row, whether both decide alike. A flip between scores that lie within twice the tolerance of each other (for
    several labels, of one within the tolerance of 0.5) is what the tolerance allows, and counts as alike.
    """
    alike: NDArray[np.bool_]
    if task == "multi_label":
        flipped = (reference >= 0.5) != (scores >= 0.5)
        alike = ~(flipped & (np.abs(reference - 0.5) > tolerance)).any(axis=1)
    else:
        answered = np.take_along_axis(reference, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
        alike = reference.max(axis=1) - answered <= 2 * tolerance
    return alike


def near_ties(scores: NDArray[np.float32], task: Task, tolerance: float) -> int:
    """How many rows a difference within the tolerance could decide otherwise."""
    if task == "multi_label":
        return int((np.abs(scores - 0.5) <= tolerance).any(axis=1).sum())
    best = np.sort(scores, axis=1)[:, -2:]
    return int((best[:, 1] - best[:, 0] <= 2 * tolerance).sum())
