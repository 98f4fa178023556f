"""Encoded pictures → answers, many at a time and without a server: what `taxon classify --models` runs in each of its
processes, and Ray Data in each of its actors.

A straight line through the service's own parts: `pixels`, a session that has answered the bundle's goldens, ranking. So
an answer is the service's to the last bit on the same processor.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import pixels, store, version_labels
from taxon.bundle.picture_limits import Limits, PictureError, PictureTooLargeError
from taxon.service.errors import InferenceFailedError
from taxon.service.ranking import DEFAULT_MAX_RESULTS, Ranked, Ranking
from taxon.service.runtime.batch_run import answer_batch, stacked
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.device import CPU, Device

USUAL_BATCH, LARGEST_BATCH = 8, 64
LARGEST_BATCH_BYTES = 2**20
"""Of arrays: of small pictures, which run quickly, more at once are faster still."""
IMAGE_TOO_LARGE, IMAGE_UNDECODABLE, INFERENCE_FAILED = "IMAGE_TOO_LARGE", "IMAGE_UNDECODABLE", "INFERENCE_FAILED"

Outcome = Ranked | PictureError | InferenceFailedError


class Classifier:
    """A bundle that answers batches on CPUs. Made once in each process; takes a second or a few, for its proof.

    With Ray Data:

        ray.data.read_binary_files(folder, include_paths=True).map_batches(
            Classifier, fn_constructor_kwargs={"models": "models", "column": "bytes"}, concurrency=8, batch_size=64
        )

    Args:
        models: The repository, as `taxon serve --models` takes it.
        model: Empty for its only model.
        version: A number or a label; empty for the default.
        column: Of a batch, with the encoded pictures.
        max_results: Classes in an answer; 0 for the service's default, 5.
        min_score: The lowest score in an answer, in [0, 1]; None as for `Client.classify`.
        variant: Of the bundle.
        batch_size: The largest batch of one run, a power of two; None: 8, of small pictures up to 64.
        threads: Of one run.

    Raises:
        BundleError: There is no such model, or it is not fit to be served.
        ValueError: It takes numbers, not pictures, or has no such variant.
    """

    def __init__(
        self,
        models: str | Path,
        model: str = "",
        version: str = "",
        *,
        column: str = "image",
        max_results: int = DEFAULT_MAX_RESULTS,
        min_score: float | None = None,
        variant: Literal["fp32", "fp16", "int8"] = "fp32",
        batch_size: int | None = None,
        threads: int = 1,
    ) -> None:
        if batch_size is not None and (batch_size < 1 or batch_size & (batch_size - 1)):
            raise ValueError(f"a batch_size of {batch_size} is no power of two")
        self._column, self._max_results, self._min_score = column, max_results, min_score
        self._limits = Limits()
        self.model, self.version = version_labels.named(Path(models), model, version)
        bundle = store.read(Path(models), self.model, self.version)
        manifest = bundle.manifest
        if manifest.pixels is None:
            raise ValueError(f"{self.model} takes numbers, not pictures")
        if variant not in {found.precision for found in manifest.variants}:
            raise ValueError(f"{self.model} version {self.version} has no variant {variant}")
        most = LARGEST_BATCH_BYTES // math.prod(manifest.pixels.shape)
        size = batch_size or min(max(USUAL_BATCH, most), LARGEST_BATCH)
        self._buckets = tuple(1 << power for power in range(size.bit_length()))
        proven = prove(bundle, variant, Device(CPU), threads, self._buckets, self._limits)
        self.variant = variant
        self.labels = manifest.labels
        self._pixels, self._run = manifest.pixels, proven.session.run
        unknown = manifest.unknown_threshold(variant)
        self._ranking = Ranking(manifest.task, unknown, manifest.thresholds.labels, len(manifest.labels))

    @property
    def max_bytes(self) -> int:
        """Of the largest picture that is taken."""
        return self._limits.max_bytes

    def classify(self, encoded: Iterable[bytes]) -> list[Outcome]:
        """An answer for each picture, or why there is none: one bad picture is its own failure. Takes one picture
        after the other, and holds no more of them than a batch.
        """
        outcomes: list[Outcome | None] = []
        ready: list[tuple[int, NDArray[np.uint8]]] = []
        for index, picture in enumerate(encoded):
            outcomes.append(None)
            try:
                ready.append((index, pixels.decode(picture, self._pixels, self._limits)))
            except PictureError as error:
                outcomes[index] = error
            if len(ready) == self._buckets[-1]:
                self._answer(ready, outcomes)
                ready = []
        if ready:
            self._answer(ready, outcomes)
        return [outcome for outcome in outcomes if outcome is not None]

    def _answer(self, ready: Sequence[tuple[int, NDArray[np.uint8]]], outcomes: list[Outcome | None]) -> None:
        batch = stacked([array for _, array in ready], self._buckets[-1])
        answers, _ = answer_batch(self._run, batch, len(ready))
        for (index, _), answer in zip(ready, answers, strict=True):
            if isinstance(answer, InferenceFailedError):
                outcomes[index] = answer
            elif isinstance(answer, Exception):
                raise answer
            else:
                outcomes[index] = self._ranking.rank(answer, self._max_results, self._min_score)

    def named(self, ranked: Ranked) -> list[str]:
        """The labels of an answer, best first."""
        return [self.labels[index] for index in ranked.indexes]

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The batch without its pictures, and with an answer in each row, in the columns of `taxon classify --out`.

        Args:
            batch: Arrays `[rows]`; that of `column` holds encoded pictures.

        Returns:
            Beside the other columns: `label` (empty: unknown, or an error), `score` (float32, NaN: none), `unknown`,
            `familiarity` (float32, NaN: the model does not judge it), `labels` and `scores` (lists, best first),
            `model`, `version`, `variant`, `error` (a reason of the service, empty: none) and `message`.
        """
        outcomes = self.classify([bytes(picture) for picture in batch[self._column]])
        found = [outcome if isinstance(outcome, Ranked) else None for outcome in outcomes]
        count = len(outcomes)
        labels = [[] if ranked is None else self.named(ranked) for ranked in found]
        scores = [[] if ranked is None else ranked.scores for ranked in found]
        best = [
            names[0] if names and ranked and not ranked.unknown else ""
            for names, ranked in zip(labels, found, strict=True)
        ]
        answers: dict[str, NDArray[Any]] = {
            "label": np.array(best, dtype=object),
            "score": np.array([values[0] if values else np.nan for values in scores], dtype=np.float32),
            "unknown": np.array([ranked is not None and ranked.unknown for ranked in found]),
            "familiarity": np.array(
                [np.nan if ranked is None or ranked.familiarity is None else ranked.familiarity for ranked in found],
                dtype=np.float32,
            ),
            "labels": _lists(labels),
            "scores": _lists([np.array(values, dtype=np.float32) for values in scores]),
            "model": np.full(count, self.model, dtype=object),
            "version": np.full(count, self.version),
            "variant": np.full(count, self.variant, dtype=object),
            "error": np.array([reason_of(outcome) for outcome in outcomes], dtype=object),
            "message": np.array(
                [str(outcome) if isinstance(outcome, Exception) else "" for outcome in outcomes], dtype=object
            ),
        }
        return {name: values for name, values in batch.items() if name != self._column} | answers


def reason_of(outcome: Outcome) -> str:
    """The service's reason for an error; empty for an answer."""
    if isinstance(outcome, Ranked):
        return ""
    if isinstance(outcome, InferenceFailedError):
        return INFERENCE_FAILED
    return IMAGE_TOO_LARGE if isinstance(outcome, PictureTooLargeError) else IMAGE_UNDECODABLE


def _lists(values: Sequence[Any]) -> NDArray[Any]:
    """An array of sequences, which NumPy would rather make a matrix of."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array
