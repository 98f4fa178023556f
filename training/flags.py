"""Command line and TOML → `Recipe`, and back. One flag per option, made from the recipe's own fields, so that
help, TOML keys and checks cannot differ.
"""

import argparse
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.suggest import nearest

SHORT = {
    "data.source": "data",
    "model.name": "model",
    "distill.temperature": "distill-temperature",
    "distill.weight": "distill-weight",
    "privacy.noise": "dp-noise",
    "privacy.clip": "dp-clip",
    "privacy.delta": "dp-delta",
}
"""Flags that are not called as their key."""
RECIPES = Path(__file__).parent / "recipes"
EMBEDDED = "digits"
"""The recipe without `--data` and `--recipe`."""


@dataclass(frozen=True, slots=True)
class Call:
    """What `taxon train` was asked to do."""

    recipe: Recipe
    out: Path | None
    resume: Path | None
    dry_run: bool


def options() -> Iterator[tuple[str, str, FieldInfo]]:
    """(section, key, field) of every option."""
    for section, part in Recipe():
        for key, field in type(part).model_fields.items():
            yield section, key, field


def parse(argv: list[str], parser: argparse.ArgumentParser) -> Call:
    """Reads flags over `--set` over the recipe file over the defaults.

    Args:
        argv: Words behind the command.
        parser: Receives the flags; for its description.

    Raises:
        TrainingError: An unknown key, or a value out of range; the message says which and what is allowed.
    """
    _add_flags(parser)
    given = vars(parser.parse_args(argv))
    out, resume, dry_run = given.pop("out"), given.pop("resume"), given.pop("dry_run")
    assignments, file = given.pop("set"), given.pop("recipe")
    if resume is not None:
        out, values = resume, read_resolved(resume)
    else:
        if file is None and "data.source" not in given:
            file = EMBEDDED
        values = read_toml(file) if file is not None else {}
    for assignment in assignments:
        assign(values, assignment)
    for key, value in given.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return Call(checked(values), out, resume, dry_run)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="FILE", help=f"TOML file, or one of: {', '.join(recipe_names())}")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="any option, as in TOML"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="run folder (default: runs/MODEL-TIME)")
    parser.add_argument("--resume", metavar="FOLDER", type=Path, help="go on with this run, with its own recipe")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved plan and stop")
    groups = {
        name: parser.add_argument_group(name, part.annotation.__doc__) for name, part in Recipe.model_fields.items()
    }
    for section, key, field in options():
        flag = "--" + SHORT.get(f"{section}.{key}", key).replace("_", "-")
        settings: dict[str, Any] = {"dest": f"{section}.{key}", "default": argparse.SUPPRESS}
        default = field.default if isinstance(field.default, str | int | float | bool | Path) else None
        settings["help"] = f"{field.description} (default: {default})" if default is not None else field.description
        if field.annotation is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif isinstance(field.default, tuple):
            settings |= {"nargs": "+", "metavar": "STAGE"}
        else:
            settings["metavar"] = _metavar(key, field)
        settings["help"] = settings["help"].replace("%", "%%")
        groups[section].add_argument(flag, **settings)


def _metavar(key: str, field: FieldInfo) -> str:
    choices = getattr(field.annotation, "__args__", ())
    return "|".join(choices) if choices and all(isinstance(choice, str) for choice in choices) else key.upper()


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_toml(file: str) -> dict[str, Any]:
    """Reads a recipe by path, or by name if the package has it.

    Raises:
        TrainingError: Missing or not TOML.
    """
    path = RECIPES / f"{file}.toml" if file in recipe_names() else Path(file)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"there is no recipe {file}{nearest(file, recipe_names())}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"the recipe {file} cannot be read: {error}") from error


def read_resolved(folder: Path) -> dict[str, Any]:
    """The recipe of a run, which names every option that there was. Runs older than the choice had Pillow's resize.

    Raises:
        TrainingError: See `read_toml`.
    """
    values = read_toml(str(folder / "recipe.toml"))
    values.setdefault("data", {}).setdefault("resampler", "pillow")
    return values


def assign(values: dict[str, Any], assignment: str) -> None:
    """Puts `section.key=value` into nested values.

    Raises:
        TrainingError: It is not of that form.
    """
    name, equals, text = assignment.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise TrainingError(f"--set {assignment!r} must be section.key=value, for example optim.lr=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # words need no quotes on the command line
    values.setdefault(section, {})[key] = value


def checked(values: Mapping[str, Any]) -> Recipe:
    """Checks nested values.

    Raises:
        TrainingError: Names each wrong key or value, and the nearest right name.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TrainingError("; ".join(_fault(fault) for fault in error.errors())) from error


def _fault(fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    known = [f"{section}.{name}" for section, name, _ in options()] if "." in key else list(Recipe.model_fields)
    return f"there is no option {key}{nearest(key, known)}"


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every option; `read_toml` and `checked` give the same recipe back."""
    lines = []
    for section, part in recipe.model_dump(mode="json", exclude_none=True).items():
        lines += [
            f"[{section}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in part.items()),
            "",
        ]
    return "\n".join(lines)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`section.key: old -> new` for each option that makes another recipe; `machine` may differ."""
    return [
        f"{section}.{key}: {before!r} -> {after!r}"
        for section, key, _ in options()
        if section != "machine"
        and (before := getattr(getattr(old, section), key)) != (after := getattr(getattr(new, section), key))
    ]
