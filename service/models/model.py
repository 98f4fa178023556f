"""One loaded version of a model, bundle or bare graph alike, and the state of one that is not."""

from dataclasses import dataclass
from typing import Literal

from taxon.bundle.manifest import Manifest
from taxon.service.ranking import Ranking
from taxon.service.runtime.description import Description
from taxon.service.workers.worker_protocol import Loaded

NO_VERSION = 0
"""Stands for a folder that has something which is no version."""
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model, ready for calls."""

    number: int
    """Stands for it in the executor."""
    description: Description
    manifest: Manifest | None
    """None: a graph without one, which takes and gives tensors."""
    ranking: Ranking | None
    """What the scores mean."""
    picture_bytes: int
    """Of the array that a picture becomes; 0 if it takes no pictures."""
    golden_difference: float = 0.0
    """The largest of any golden's score at its load; of a graph without goldens 0."""

    @property
    def name(self) -> str:
        """Of the model's folder."""
        return self.description.name

    @property
    def version(self) -> int:
        """Of the version's folder."""
        return self.description.version


def model_of(loaded: Loaded) -> Model:
    """What a worker has proved."""
    if loaded.description is None:
        raise TypeError("a refused model is none")
    manifest = loaded.manifest
    if manifest is None:
        return Model(loaded.model, loaded.description, None, None, 0)
    height, width, channels = manifest.input.shape if manifest.input.kind == "image" else (0, 0, 0)
    unknown = manifest.unknown_threshold(loaded.description.variant)
    ranking = Ranking(manifest.task, unknown, manifest.thresholds.labels, len(manifest.labels))
    size = height * width * channels
    return Model(loaded.model, loaded.description, manifest, ranking, size, loaded.largest_difference)


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version of a model, in the repository's folder or served."""

    name: str
    version: int
    """`NO_VERSION` if there is none."""
    state: State
    reason: str = ""
    """Why it is not ready."""
