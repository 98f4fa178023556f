"""Classifiers that Taxon did not train: a weights file, its labels, and pictures to prove it on.

Makes a `Candidate`; the rest is `bundling`'s, as for a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.store import sha256
from taxon.mistaken import MISTAKEN_BYTES, mistaken_for
from taxon.picture_files import CONTROL, composed, printable
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.network import model
from taxon.training.network.model import Preprocessing


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the classifier was trained, as far as its user says so; the rest is that of the architecture's weights."""

    image_size: int | None = None
    pixels: Path | None = None
    """JSON of the manifest's `pixels`."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    expected_accuracy: float | None = None


def from_checkpoint(weights: Path, name: str, labels: Path, folder: Path, wanted: Wanted = Wanted()) -> Candidate:
    """A candidate from a `.pth`, `.pt` or `.safetensors` file.

    Args:
        weights: Read with `weights_only`: no code runs.
        name: A model of `network.published.names()`.
        labels: Text file, one label a line, in the order of the logits.
        folder: Labelled folder of validation pictures.
        wanted: The preprocessing.

    Raises:
        TrainingError: Another architecture or label count, labels that are blank or double, or no such file.
    """
    chosen = read_labels(labels)
    loaded = model.load(name, len(chosen), weights=str(weights.resolve()))
    if loaded.dropped_head:
        raise ExportError(f"{weights} ends in another number of classes than the {len(chosen)} labels of {labels}")
    preprocessing = _preprocessing(name, wanted)
    held_out = data.with_digests(data.scan_held_out(folder, data.VALIDATION_FIRST))
    return Candidate(
        network=loaded.network.eval(),
        head=loaded.head,
        labels=chosen,
        pixels=preprocessing.pixels,
        mean=preprocessing.mean,
        std=preprocessing.std,
        files=tuple(sample.path for sample in held_out.samples),
        answers=answers(held_out),
        run_id=f"sha256-{sha256(weights)[:16]}",
        data_digest=data.digest(held_out.samples, held_out.labels),
        expected_accuracy=wanted.expected_accuracy,
        recipe={"checkpoint": weights.name, "model": name},
        notes=notes(held_out, folder),
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, in class order.

    Raises:
        ExportError: The file cannot be read or is something else, or has fewer than two labels, a blank or a double
            one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\r\n").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"the labels {path} cannot be read: {error}") from error
    if mistaken := mistaken_for("\n".join(lines).encode()[:MISTAKEN_BYTES]):
        raise ExportError(f"the labels {path} cannot be read: the file is {mistaken}")
    labels = tuple(composed(line.strip()) for line in lines)
    if blank := [number for number, label in enumerate(labels, 1) if not label]:
        raise ExportError(f"{path} has a blank label on line {blank[0]}")
    if odd := [label for label in labels if CONTROL.search(label)]:
        raise ExportError(f"{path} has control characters in the labels {odd[:5]}")
    if double := sorted({label for label in labels if labels.count(label) > 1}):
        raise ExportError(f"{path} has the labels {double[:5]} more than once")
    if len(labels) < 2:
        raise ExportError(f"{path} has {len(labels)} labels: a classifier needs two or more")
    return labels


def read_pixels(path: Path) -> PixelSpec:
    """A pixel specification as the manifest writes it.

    Raises:
        ExportError: The file cannot be read or says something else.
    """
    try:
        return PixelSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ExportError(f"{path} does not say how pictures become arrays: {faults}") from error


def answers(held_out: Labelled) -> tuple[tuple[str, ...], ...]:
    """The true labels by name."""
    return tuple(sample.names(held_out.labels) for sample in held_out.samples)


def notes(held_out: Labelled, folder: Path) -> tuple[str, ...]:
    """What a person should know of the pictures that prove a classifier: of which split they are, what was left out."""
    said = [f"measured on the {split} split of {folder}" for split in {s.split for s in held_out.samples} if split]
    if held_out.faults:
        first = held_out.faults[0]
        said.append(f"left out {len(held_out.faults)} in {folder}, the first {printable(first.path)}: {first.reason}")
    return tuple(said)


def check_channels(values: Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    """`values` as a tuple.

    Raises:
        ExportError: There is not one for each channel.
    """
    if len(values) != channels:
        raise ExportError(f"{what} has {len(values)} values for {channels} channels")
    return tuple(values)


def _preprocessing(name: str, wanted: Wanted) -> Preprocessing:
    if wanted.pixels is not None:
        pixels = read_pixels(wanted.pixels)
        preset = replace(model.preprocessing(name, image_size=pixels.crop[0], color=pixels.color), pixels=pixels)
    else:
        preset = model.preprocessing(name, image_size=wanted.image_size)
    channels = len(preset.mean)
    return Preprocessing(
        preset.pixels,
        check_channels(wanted.mean or preset.mean, channels, "the mean"),
        check_channels(wanted.std or preset.std, channels, "the deviation"),
    )
