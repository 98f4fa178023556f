"""What versions are compared on: pictures, or rows of numbers, with their true labels."""

from dataclasses import dataclass
from pathlib import Path

from taxon.bundle.manifest import FeaturesInput, Manifest
from taxon.training.dataset import data, tables
from taxon.training.dataset.data import Sample
from taxon.training.exporting import examples, foreign
from taxon.training.exporting.examples import Example
from taxon.training.runs.folder import Run


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures, or rows of numbers, that neither version was trained on."""

    files: tuple[Example, ...]
    labels: tuple[tuple[str, ...], ...]
    samples: tuple[Sample, ...]
    """The same, with what divides them."""
    notes: tuple[str, ...] = ()
    """What a person should know of them."""


def from_data(source: Path, manifest: Manifest) -> HeldOut:
    """All pictures of a labelled folder or CSV list, or of one with splits its test split, or its validation split; for
    a classifier of numbers, all rows of a CSV file.

    Raises:
        TrainingError: It is not that.
    """
    files: tuple[Example, ...]
    if isinstance(manifest.input, FeaturesInput):
        files, found = examples.of_table(source, manifest.input.names)
    else:
        listed = tables.manifest(tables.read_table(source), manifest.task) if source.is_file() else data.scan(source)
        found = data.held_out(listed, data.TEST_FIRST, source)
        files = tuple(sample.path for sample in found.samples)
    return HeldOut(files, foreign.answers(found), found.samples, foreign.notes(found, source))


def from_run(folder: Path) -> HeldOut:
    """The test split of a run, or its validation split.

    Raises:
        TrainingError: Not a run.
    """
    run = Run.open(folder)
    split = "test" if run.samples("test") else "val"
    files = examples.of_run(run, split, run.checkpoint())
    samples = tuple(run.samples(split))
    return HeldOut(files, tuple(sample.names(run.labels) for sample in samples), samples)
