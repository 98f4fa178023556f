"""What is known of the models: which are served, in what state the others are, which version is the default.

Pure lookups, the same in every front. Knows neither folders (see `control`) nor where a model runs.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from taxon.bundle.traffic import STABLE, Traffic
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, NotServingError
from taxon.service.models.holds import Holds
from taxon.service.models.model import NO_VERSION, Model, VersionState
from taxon.service.models.trials import Role, Stopped, TrafficTrial, trial_of

VERSION = re.compile(r"[1-9][0-9]{0,17}")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Known:
    """All that fronts must agree on."""

    models: dict[str, dict[int, Model]] = field(default_factory=dict)
    states: dict[tuple[str, int], VersionState] = field(default_factory=dict)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    """What is declared for each model."""
    defaults: dict[str, int] = field(default_factory=dict)
    """The version that answers calls which name none, by model."""
    trials: dict[tuple[str, Role], TrafficTrial] = field(default_factory=dict)
    """What has become of the declared canaries and shadows."""
    stopped: dict[str, Stopped] = field(default_factory=dict)
    """Canaries that were rolled back, by model."""
    loading: bool = True
    """Whether the first load of the whole folder is still under way."""


class Repository:
    """The models of one server. Lives on the event loop; not thread-safe."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Knows nothing yet.

        Args:
            on_change: Told after every change.
        """
        self.known = Known()
        self.holds = Holds()
        """Which of them calls are not done with; in a front of its own, its calls."""
        self._on_change = on_change

    def __len__(self) -> int:
        return sum(len(versions) for versions in self.known.models.values())

    def publish(self, model: Model) -> Model | None:
        """Makes a version findable. Returns what it replaces."""
        versions = self.known.models.setdefault(model.name, {})
        replaced = versions.get(model.version)
        versions[model.version] = model
        self.note(VersionState(model.name, model.version, "READY"))
        return replaced

    def retire(self, model: Model, reason: str) -> None:
        """Takes a version out."""
        versions = self.known.models.get(model.name, {})
        if versions.get(model.version) is not model:
            return  # another has taken its place
        del versions[model.version]
        if not versions:
            del self.known.models[model.name]
        self.note(VersionState(model.name, model.version, "UNAVAILABLE", reason))

    def note(self, state: VersionState) -> None:
        """Remembers the state of a version."""
        self.known.states[state.name, state.version] = state
        self._choose(state.name)

    def forget(self, name: str, version: int) -> None:
        """Drops the state of a version that has gone from the folder."""
        self.known.states.pop((name, version), None)
        self._choose(name)

    def declare(self, name: str, traffic: Traffic) -> None:
        """Takes over what is declared for a model."""
        if traffic != self.known.traffic.get(name):
            self.known.traffic[name] = traffic
            self._choose(name)

    def roll_back(self, name: str, reason: str) -> None:
        """Gives the canary's traffic back to the default, until the canary is declared anew or loaded again."""
        canary = self.known.traffic[name].canary
        if canary is None:
            return
        self.known.stopped[name] = Stopped(canary, self.known.models[name][canary.version].number, reason)
        self._choose(name)

    def _choose(self, name: str) -> None:
        self._choose_default(name)
        self._choose_trials(name)
        self._on_change()

    def _choose_trials(self, name: str) -> None:
        known, traffic = self.known, self.known.traffic.get(name, Traffic())
        served = known.models.get(name, {})
        roles: tuple[Role, ...] = ("canary", "shadow")
        for role, declared in zip(roles, (traffic.canary, traffic.shadow), strict=True):
            before, after = known.trials.pop((name, role), None), None
            if declared is not None:
                version = declared.version
                state = known.states.get((name, version))
                after = trial_of(declared, name, served.get(version), state, known.stopped.get(name))
                known.trials[name, role] = after
            if after != before:
                _tell_of_trial(before, after)

    def finish_loading(self) -> None:
        """The first load of the whole folder is over."""
        self.known.loading = False
        self._on_change()

    def _choose_default(self, name: str) -> None:
        """What the label says; while that is not served, the last default that is; without a label the latest. A
        version that somebody did not choose never answers because of its number.
        """
        defaults, served = self.known.defaults, self.known.models.get(name, {})
        before = defaults.get(name)
        stable = self._labels(name).get(STABLE)
        chosen = max(served, default=None) if stable is None else stable
        if chosen in served:
            defaults[name] = chosen
        elif before not in served:
            defaults.pop(name, None)
        after = defaults.get(name)
        if after != before:
            log.info("default version", model=name, version=after, before=before)
        elif stable is not None and after != stable and stable not in served and after is not None:
            log.warning("the label names a version that is not served", model=name, version=stable, serving=after)

    def takes_over(self, name: str, version: int) -> bool:
        """Whether calls that are answered now would go to this version instead, were it served from now on: all that
        name none or this one, or the canary's share.
        """
        known = self.known
        default = known.defaults.get(name)
        if default is None or known.loading:  # whoever has a model first begins to answer
            return False
        declared, stable = known.traffic.get(name, Traffic()), self._labels(name).get(STABLE)
        is_canary = declared.canary is not None and declared.canary.version == version
        is_default = version == stable if stable is not None else version > default
        return is_default or is_canary or version in known.models[name]

    def find(self, name: str, version: str) -> Model:
        """The model that a call names.

        Args:
            name: Of the model.
            version: Empty for the default version, else a decimal number or a label.

        Raises:
            ModelNotFoundError: There is no such model or version.
            NotServingError: It is being loaded, or the default version is not served.
        """
        versions = self.known.models.get(name)
        if versions is None:
            raise self._why_missing(name, version)
        number = self._number(name, version)
        model = None if number is None else versions.get(number)
        if model is None:
            raise self._why_missing(name, version)
        return model

    def find_classifier(self, name: str, version: str) -> Model:
        """As `find`, for a model with a manifest; an empty name is that of the only one.

        Raises:
            FieldInvalidError: No name although several models are served; or the model takes tensors.
        """
        if not name:
            name = self._only_classifier()
        model = self.find(name, version)
        if model.manifest is None:
            raise FieldInvalidError(
                "model_name", f"{name!r} has no manifest: it takes and gives tensors, by ModelInfer"
            )
        return model

    def _only_classifier(self) -> str:
        names = sorted(
            name for name, versions in self.known.models.items() if any(model.manifest for model in versions.values())
        )
        if len(names) > 1:
            raise FieldInvalidError("model_name", f"name one of {names}")
        if self.known.loading:
            raise NotServingError("models are being loaded: name one, or wait")
        if not names and self.known.models:
            bare = sorted(self.known.models)
            raise FieldInvalidError(
                "model_name",
                f"no model with a manifest is served, only {bare}: they take and give tensors, by ModelInfer",
            )
        if not names:
            raise NotServingError("no model is loaded")
        return names[0]

    def _number(self, name: str, version: str) -> int | None:
        if not version:
            return self.known.defaults.get(name)
        return int(version) if VERSION.fullmatch(version) else self._labels(name).get(version)

    def _labels(self, name: str) -> Mapping[str, int]:
        traffic = self.known.traffic.get(name)
        return traffic.labels if traffic else {}

    def _why_missing(self, name: str, version: str) -> Exception:
        """What is still being loaded may yet come."""
        known = self.known
        number = self._number(name, version)
        states = [
            state.state
            for (other, other_version), state in known.states.items()
            if other == name and (number is None or other_version == number or not version)
        ]
        if "LOADING" in states or (known.loading and not known.states):  # the folder has not even been listed
            return NotServingError(f"model {name!r} is being loaded")
        if not version and name in known.models:
            stable = self._labels(name).get(STABLE)
            return NotServingError(f"version {stable} of {name!r}, which is labelled stable, is not served")
        return ModelNotFoundError(name, version)

    def versions(self, name: str) -> Sequence[int]:
        """The served versions of a model, ascending. Empty if there are none."""
        return sorted(self.known.models.get(name, ()))

    def default_version(self, name: str) -> int | None:
        """The version that answers calls which name none."""
        return self.known.defaults.get(name)

    def trial(self, name: str, version: int) -> TrafficTrial | None:
        """The trial that a version is on."""
        for trial in self.known.trials.values():
            if (trial.name, trial.version) == (name, version):
                return trial
        return None

    def listing(self) -> Sequence[Model]:
        """Every served version, by name and version."""
        models = self.known.models
        return [models[name][version] for name in sorted(models) for version in sorted(models[name])]

    def index(self) -> Sequence[VersionState]:
        """Every version that is served or was tried, and what else the folder has, by name and version."""
        return [self.known.states[key] for key in sorted(self.known.states)]

    def knows(self, name: str, version: str) -> bool:
        """Whether a version, or any if none is given, is served or in the folder."""
        return any(key[0] == name and version in ("", str(key[1])) for key in self.known.states if key[1] != NO_VERSION)

    def refused(self) -> Sequence[VersionState]:
        """Versions that were found and may not be served, by name and version."""
        states = [state for state in self.index() if state.version != NO_VERSION]
        return [state for state in states if state.state == "UNAVAILABLE" and state.reason != "unloaded"]

    @property
    def refused_count(self) -> int:
        """How many were found and may not be served."""
        return len(self.refused())


def _tell_of_trial(before: TrafficTrial | None, after: TrafficTrial | None) -> None:
    trial = after or before
    if trial is None:
        return
    facts = {"model": trial.name, "version": trial.version, "role": trial.role}
    if after is None:
        log.info("trial is over", **facts)
    elif after.state == "RUNNING":
        log.info("trial is under way", **facts, share=after.share)
    elif after.state == "LOADING":
        log.info("trial begins once its version is loaded", **facts)
    elif after.state == "ROLLED_BACK":
        log.error("canary was rolled back, the default answers", **facts, reason=after.reason)
    else:
        log.warning("trial is not under way, its version is not served", **facts, reason=after.reason)
