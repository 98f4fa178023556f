"""A finished run as a candidate for export."""

from pathlib import Path

from taxon.bundle.manifest import Privacy
from taxon.training import flags
from taxon.training.dataset import data
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
    privacy = Privacy.model_validate(checkpoint.privacy) if checkpoint.privacy else None
    # Weights that tell little of a training picture are worth nothing beside a bank of its features, or a digest by
    # which anybody can try whether it was there.
    shown = () if privacy else run.samples("train")
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
        data_digest=data.digest(run.samples("val"), run.labels) if privacy else run.data_digest,
        task=checkpoint.task,
        expected_accuracy=checkpoint.metrics.get("accuracy") if checkpoint.task == "single_label" else None,
        seed=run.facts.get("seed"),
        git=run.facts.get("git"),
        training_files=examples.of_run(run, "train", checkpoint) if shown else (),
        training_answers=tuple(sample.names(run.labels) for sample in shown),
        privacy=privacy,
        features=checkpoint.features,
        parents=tuple(run.facts.get("parents", ())),
        recipe=flags.read_toml(str(run.folder / "recipe.toml")),
        metrics={name: float(value) for name, value in checkpoint.metrics.items()},
    )
