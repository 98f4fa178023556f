"""What a search may change: a TOML file or the default of the recipe's mode → distributions by option."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.plan import resolved
from taxon.training.suggest import nearest

Space = Mapping[str, BaseDistribution]
"""By `section.key`."""
RANGE_KEYS = {"low", "high", "log", "step"}
FIXED = {
    "data": "trials on other data cannot be compared",
    "run": "the seeds are the search's own",
    "machine": "it must not change what comes out",
}
"""Sections that no search changes, and why."""
LR_FACTOR = 10.0
"""The default space's ends of a learning rate, as factors below and above the recipe's."""


def read_space(file: Path, base: Recipe) -> Space:
    """A space from a TOML file: a recipe's sections and keys; a list is a choice, `{low, high, log, step}` a range.

    Args:
        file: The TOML file.
        base: The recipe that trials change.

    Raises:
        TrainingError: Not TOML, a key that no recipe has or that may not vary, or a value out of range.
    """
    space: dict[str, BaseDistribution] = {}
    for section, part in flags.read_toml(str(file)).items():
        if section in FIXED:
            raise TrainingError(f"the space {file} varies {section}: {FIXED[section]}")
        if not isinstance(part, dict):
            raise TrainingError(f"the space {file} has {section} outside a section such as [optim]")
        for key, given in part.items():
            space[f"{section}.{key}"] = _distribution(f"{section}.{key}", given, base)
    if not space:
        raise TrainingError(f"the space {file} is empty: name an option, for example [optim] lr = {{low=…, high=…}}")
    return space


def _distribution(name: str, given: Any, base: Recipe) -> BaseDistribution:
    if isinstance(given, list):
        if len(given) < 2 or not all(isinstance(choice, str | int | float | bool) for choice in given):
            raise TrainingError(f"{name} = {given!r} must list two values or more to choose from")
        for choice in given:
            resolved(with_values(base, {name: choice}))
        return CategoricalDistribution(given)
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys():
        raise TrainingError(f"{name} = {given!r} must be a list of choices, or a range {{low=…, high=…}}")
    if unknown := sorted(given.keys() - RANGE_KEYS):
        raise TrainingError(f"the range of {name} has {unknown[0]!r}{nearest(unknown[0], RANGE_KEYS)}")
    ends = [with_values(base, {name: given[end]}) for end in ("low", "high")]
    for end in ends:
        resolved(end)
    section, _, key = name.partition(".")
    low, high = (getattr(getattr(end, section), key) for end in ends)
    kinds = {int: IntDistribution, float: FloatDistribution}
    if type(low) not in kinds:
        raise TrainingError(f"{name} is no number: list the values to choose from")
    step = {"step": given["step"]} if "step" in given else {}
    try:
        return kinds[type(low)](low, high, log=given.get("log", False), **step)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"the range of {name}: {error}") from error


def default_space(base: Recipe) -> Space:
    """What is worth varying in a recipe's mode: rates and decay always, augmentation where pictures vary.

    Args:
        base: Resolved.
    """
    model, optim = base.model, base.optim
    space: dict[str, BaseDistribution] = {
        "optim.lr": _around(optim.lr),
        "optim.weight_decay": FloatDistribution(1e-5, 0.3, log=True),
        "optim.label_smoothing": FloatDistribution(0.0, 0.2),
    }
    if model.mode == "lp-ft":
        space["optim.head_lr"] = _around(optim.head_lr)
    if model.mode in ("full", "lp-ft", "last-n", "hybrid"):
        space["optim.layer_decay"] = FloatDistribution(0.5, 1.0)
    if model.mode == "scratch":
        space["optim.warmup_epochs"] = FloatDistribution(0.0, min(3.0, optim.epochs / 4))
        space["optim.ema"] = CategoricalDistribution([0.0, 0.98, 0.99])
    if model.name != "mlp" and not (model.mode == "head" and model.features == "cached"):
        space["augment.policy"] = CategoricalDistribution(["none", "trivialaugment"])
        if model.mode == "scratch":
            space["augment.pad"] = IntDistribution(0, max(4, base.augment.pad))
        else:
            space["augment.scale"] = FloatDistribution(0.3, 1.0)
    return space


def _around(rate: float | None) -> BaseDistribution:
    if rate is None:
        raise ValueError("resolve the recipe first")
    return FloatDistribution(rate / LR_FACTOR, rate * LR_FACTOR, log=True)


def with_values(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values of some options.

    Args:
        base: Resolved or not.
        values: By `section.key`.

    Raises:
        TrainingError: There is no such option, or the value is out of range.
    """
    content = base.model_dump()
    for name, value in values.items():
        section, _, key = name.partition(".")
        content.setdefault(section, {})[key] = value
    return flags.checked(content)


def values_of(recipe: Recipe, space: Space) -> dict[str, Any]:
    """What a recipe has for the options of a space, by `section.key`; only of those that lie in it."""
    found = {}
    for name, distribution in space.items():
        section, _, key = name.partition(".")
        value = getattr(getattr(recipe, section), key)
        try:
            inside = value is not None and distribution._contains(distribution.to_internal_repr(value))  # noqa: SLF001 - Optuna has no public question
        except ValueError:
            inside = False  # no choice of the list
        if inside:
            found[name] = value
    return found
