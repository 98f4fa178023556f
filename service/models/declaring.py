"""Changes what is declared for models, as their callers of the admin service wish. What is set is written into the
repository, so that it outlives this server and holds for others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from taxon.bundle import default_history, traffic
from taxon.bundle.manifest import BundleError, check_name
from taxon.bundle.traffic import STABLE, Canary, Shadow, Traffic
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, RepositoryUnusableError
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository

Edit = Callable[[Traffic], Traffic]

log = structlog.get_logger(__name__)


class Declaring:
    """The traffic of all models of one folder. Lives on the event loop.

    Every method raises `FieldInvalidError` for what does not go together, `ModelNotFoundError` and `NotServingError`
    for versions that are not served, and `RepositoryUnusableError` where nothing can be written; then nothing has
    changed.
    """

    def __init__(self, root: Path, repository: Repository, heard: Callable[[], Awaitable[None]]) -> None:
        """Changes nothing yet.

        Args:
            root: The folder.
            repository: What is served, which is told at once.
            heard: Returns once every front knows what the repository knows.
        """
        self._root = root
        self._repository = repository
        self._heard = heard

    async def set_default(self, name: str, version: str, reason: str) -> None:
        """Makes a version the default, and records it. One that is the default already stays so."""
        model = self._served(name, version)
        before = self._repository.default_version(name)

        def change() -> Traffic:
            with default_history.alone(self._root, name):
                labels = traffic.read(self._root, name).labels
                if labels.get(STABLE) != model.version:
                    entry = {"from": labels.get(STABLE, before), "to": model.version, "reason": reason}
                    default_history.record(self._root, name, {"action": "promote", **entry, "comparison": None})
                return traffic.change(self._root, name, lambda declared: declared.labelled(STABLE, model.version))

        await self._do(name, change)

    async def set_label(self, name: str, label: str, version: str) -> None:
        """Gives a version a label."""
        model = self._served(name, version)
        if label == STABLE:
            raise FieldInvalidError("label", "stable is the default: SetDefaultVersion sets it")
        if _checked(label).isdecimal():
            raise FieldInvalidError("label", "would hide the version of that number")
        await self._change(name, lambda declared: declared.labelled(label, model.version))

    async def delete_label(self, name: str, label: str) -> None:
        """Takes a label away."""
        self._known(name)
        _checked(label)
        await self._change(
            name,
            lambda declared: declared.changed(
                labels={other: version for other, version in declared.labels.items() if other != label}
            ),
        )

    async def set_trial(self, name: str, version: str, make: Callable[[int], Canary | Shadow]) -> None:
        """Puts a version on trial.

        Args:
            name: Of the model.
            version: A number or a label.
            make: Makes the trial of this version. May raise `ValueError`.
        """
        model = self._served(name, version)

        def edit(declared: Traffic) -> Traffic:
            trial = make(model.version)
            return declared.changed(**{"canary" if isinstance(trial, Canary) else "shadow": trial})

        await self._change(name, edit)

    async def clear(self, name: str, *, canary: bool, shadow: bool) -> None:
        """Ends trials."""
        self._known(name)
        ended = {role: None for role, ends in (("canary", canary), ("shadow", shadow)) if ends}
        await self._change(name, lambda declared: declared.changed(**ended))

    def _known(self, name: str) -> None:
        if not name:
            raise FieldInvalidError("model_name", "must be set")
        if not self._repository.knows(name, ""):
            raise ModelNotFoundError(name, "")

    def _served(self, name: str, version: str) -> Model:
        self._known(name)
        if not version:
            raise FieldInvalidError("model_version", "must be set")
        return self._repository.find(name, version)

    async def _change(self, name: str, edit: Edit) -> None:
        await self._do(name, lambda: traffic.change(self._root, name, edit))

    async def _do(self, name: str, change: Callable[[], Traffic]) -> None:
        try:
            declared = await asyncio.to_thread(change)
        except ValueError as error:
            raise FieldInvalidError("", str(error)) from error
        except (OSError, BundleError) as error:
            log.warning("traffic was not changed", model=name, reason=str(error))
            raise RepositoryUnusableError(f"the repository cannot be changed: {_why(error)}") from error
        self._repository.declare(name, declared)
        await self._heard()
        log.info("traffic was changed by call", model=name, **declared.model_dump(exclude_none=True))


def _why(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def _checked(label: str) -> str:
    try:
        return check_name(label)
    except ValueError:
        raise FieldInvalidError("label", "must have 1 to 63 lower-case letters, digits, - and _") from None
