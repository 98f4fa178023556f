"""Versions on trial: a canary answers a share of the calls that name no version, a shadow is run on copies of them."""

from dataclasses import dataclass
from typing import Literal

from taxon.bundle.traffic import Canary, Shadow
from taxon.service.models.model import Model, VersionState

Role = Literal["canary", "shadow"]
TrialState = Literal["RUNNING", "LOADING", "NOT_SERVED", "ROLLED_BACK"]


@dataclass(frozen=True, slots=True)
class TrafficTrial:
    """One version's trial."""

    role: Role
    name: str
    version: int
    share: float
    """Of the calls that name no version."""
    state: TrialState
    reason: str = ""
    """Why it is not under way."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A canary that was rolled back. Another declaration of it, or another load of its version, begins anew."""

    canary: Canary
    number: int
    """Of the model."""
    reason: str


def trial_of(
    declared: Canary | Shadow, name: str, model: Model | None, state: VersionState | None, stopped: Stopped | None
) -> TrafficTrial:
    """What is to be made of a declaration now.

    Args:
        declared: In the file.
        name: Of the model.
        model: The version, if it is served.
        state: Of the version, if it is in the folder.
        stopped: What was rolled back last.
    """
    role: Role = "canary" if isinstance(declared, Canary) else "shadow"
    stands: TrialState = "RUNNING"
    reason = ""
    if model is None:
        stands, reason = "NOT_SERVED", "there is no such version"
        if state is not None and state.state == "LOADING":
            stands, reason = "LOADING", "it is being loaded"
        elif state is not None:
            reason = state.reason or f"it is {state.state}"
    elif stopped and stopped.canary == declared and stopped.number == model.number:
        stands, reason = "ROLLED_BACK", stopped.reason
    return TrafficTrial(role, name, declared.version, declared.share, stands, reason)


def stands_in(trial: Model, default: Model, *, tensors: bool) -> bool:
    """Whether a version takes what callers send to the default: what they would be blamed for is not on trial.

    Args:
        trial: The version.
        default: Whose callers are meant.
        tensors: Whether they send and take tensors; else pictures or features, and labels.
    """
    mine, theirs = trial.description, default.description
    if tensors:
        return mine.inputs == theirs.inputs and mine.outputs == theirs.outputs
    if trial.manifest is None or default.manifest is None:
        return False
    taken, usual = trial.manifest.input, default.manifest.input
    return taken.kind == usual.kind and (taken.kind == "image" or taken.shape == usual.shape)
