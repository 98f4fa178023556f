"""The models that are being served: found by name and version, published, closed.

Knows which version is the default and what labels such as `stable` mean. Does not know how a bundle is proven
(see `proving`) or where its batches run.
"""

import functools
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog

from taxon.bundle import version_labels
from taxon.bundle.manifest import BundleError, Manifest
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, NotServingError
from taxon.service.ranking import Ranking
from taxon.service.runtime.decoding import Array, Encoded
from taxon.service.scheduling.batching import Scored

SETTLED_NS = 1_000_000_000

log = structlog.get_logger(__name__)


class Runs(Protocol):
    """Where a model's inputs go: a `Batcher`, or a fake."""

    def submit(self, payload: Array | Encoded, deadline: float, priority: int = 0) -> Awaitable[Scored]:
        """Waits for the scores of one input. Of priorities 1 is the most urgent, 0 less urgent than any other."""
        ...

    def close(self) -> None:
        """Ends what serves the inputs."""
        ...


class Model(Protocol):
    """What a repository must know of a model."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """A positive number."""
        ...

    @property
    def runs(self) -> Runs:
        """Where its inputs go."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """One version of one model, ready for calls."""

    manifest: Manifest
    precision: str
    provider: str
    ranking: Ranking
    runs: Runs

    @property
    def name(self) -> str:
        """The manifest's."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The manifest's."""
        return self.manifest.version


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels of one model, and when their folder had last changed."""

    changed_ns: int
    labels: dict[str, int]


def ranking_of(manifest: Manifest) -> Ranking:
    """What the scores of a manifest's model mean."""
    return Ranking(manifest.task, manifest.thresholds.unknown, manifest.thresholds.labels)


ModelT = TypeVar("ModelT", bound=Model)


class Repository(Generic[ModelT]):
    """The served models. Lives on the event loop; not thread-safe."""

    def __init__(
        self,
        root: Path,
        on_publish: Callable[[ModelT], None] = lambda _: None,
        on_retire: Callable[[ModelT], None] = lambda _: None,
    ) -> None:
        self._root = root
        self._on_publish = on_publish
        self._on_retire = on_retire
        self._served: dict[str, dict[int, ModelT]] = {}
        self._labels: dict[str, _Labels] = {}

    def publish(self, served: ModelT) -> None:
        """Makes a version findable."""
        self._served.setdefault(served.name, {})[served.version] = served
        self._on_publish(served)

    def versions(self, name: str) -> Sequence[int]:
        """The served versions of a model, ascending. Empty if there are none."""
        return sorted(self._served.get(name, ()))

    def retire(self, name: str) -> Sequence[ModelT]:
        """Takes every version of a model out, and returns them: their runs still have to be closed."""
        retired = list(self._served.pop(name, {}).values())
        for model in retired:
            self._on_retire(model)
        return retired

    def close(self) -> None:
        """Takes every model out and ends its runs. Blocks."""
        served, self._served = self._served, {}
        for versions in served.values():
            for version in versions.values():
                version.runs.close()

    def __len__(self) -> int:
        return sum(len(versions) for versions in self._served.values())

    def listing(self) -> Sequence[ModelT]:
        """Every served version, by name and version."""
        return [self._served[name][version] for name in sorted(self._served) for version in sorted(self._served[name])]

    def default_version(self, name: str) -> int:
        """The version that answers calls which name none: what the label `stable` points to if that is served,
        else the latest served one. `name` must be a served model's.
        """
        versions = self._served[name]
        stable = self._labels_of(name).get(version_labels.STABLE)
        return stable if stable in versions else max(versions)

    def find(self, name: str, version: str) -> ModelT:
        """The model that a call chooses.

        Args:
            name: Empty for the only model.
            version: Empty for the default version, else a decimal number or a label.

        Raises:
            FieldInvalidError: No name although several models are served.
            ModelNotFoundError: No such model or version is served.
            NotServingError: Nothing is served.
        """
        if not self._served:
            raise NotServingError("no model is loaded")
        if not name:
            if len(self._served) > 1:
                raise FieldInvalidError("model_name", f"name one of {sorted(self._served)}")
            (name,) = self._served
        versions = self._served.get(name)
        if versions is None:
            raise ModelNotFoundError(name, version)
        if not version:
            return versions[self.default_version(name)]
        number = int(version) if re.fullmatch(r"[1-9][0-9]{0,17}", version) else self._labels_of(name).get(version)
        if number is None or number not in versions:
            raise ModelNotFoundError(name, version)
        return versions[number]

    @functools.cache  # noqa: B019 - as many names as folders, and a repository lives as long as its server
    def _folder_of(self, name: str) -> str:
        return str(self._root / name / version_labels.FOLDER)

    def _labels_of(self, name: str) -> dict[str, int]:
        """The version labels of a model, read again once their folder has changed."""
        try:
            # os.path and not pathlib: this is asked for every call.
            changed_ns = os.stat(self._folder_of(name)).st_mtime_ns  # noqa: PTH116
        except OSError:
            return {}
        seen = self._labels.get(name)
        if seen and seen.changed_ns == changed_ns:
            return seen.labels
        try:
            labels = version_labels.read(self._root, name)
        except (BundleError, OSError) as error:
            log.error("version labels cannot be read, the last ones hold", model=name, reason=str(error))
            return seen.labels if seen else {}
        # A folder can change twice within one tick of its file system's clock: a young stamp is not kept.
        if time.time_ns() - changed_ns > SETTLED_NS:
            self._labels[name] = _Labels(changed_ns, labels)
        return labels
