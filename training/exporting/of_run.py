"""A finished run as a candidate for export."""

from pathlib import Path

from taxon.training import flags
from taxon.training.exporting import examples
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.network import model
from taxon.training.runs.folder import Run


def from_run(folder: Path) -> Candidate:
    """The best checkpoint of a run with the run's validation pictures.

    Raises:
        TrainingError: Not a finished run, or one whose parts do not belong together.
    """
    run = Run.open(folder)
    checkpoint = run.checkpoint()
    if checkpoint.run_id != run.id:
        raise ExportError(f"{run.best_path} belongs to the run {checkpoint.run_id}, the folder to {run.id}")
    if checkpoint.labels != run.labels:
        raise ExportError(f"{run.best_path} has other labels than labels.json, or in another order")
    network = checkpoint.build_model()
    return Candidate(
        network=network,
        head=model.head_path(network),
        labels=checkpoint.labels,
        pixels=checkpoint.pixels,
        mean=checkpoint.mean,
        std=checkpoint.std,
        files=examples.of_run(run, "val", checkpoint),
        answers=tuple(sample.names(run.labels) for sample in run.samples("val")),
        run_id=run.id,
        data_digest=run.data_digest,
        task=checkpoint.task,
        expected_accuracy=checkpoint.metrics.get("accuracy") if checkpoint.task == "single_label" else None,
        seed=run.facts.get("seed"),
        git=run.facts.get("git"),
        training_files=examples.of_run(run, "train", checkpoint),
        training_answers=tuple(sample.names(run.labels) for sample in run.samples("train")),
        features=checkpoint.features,
        parents=tuple(run.facts.get("parents", ())),
        recipe=flags.read_toml(str(run.folder / "recipe.toml")),
        metrics={name: float(value) for name, value in checkpoint.metrics.items()},
    )
