"""Which version of a model answers what: `<root>/<name>/traffic.json`, one small file beside the versions.

It holds the labels, of which `stable` names the version that answers by default (without it the latest does); the
canary, which answers a share of the calls that name no version; and the shadow, which is run on copies of such calls
and answers nobody. Knows nothing of whether a version can be loaded.

A model without that file may have labels in the form that came before it, `<root>/<name>/labels/<label>`, each a file
with a version number. The first change takes them over and removes them.
"""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from taxon.bundle import atomic_files, folder_lock
from taxon.bundle.manifest import BundleError
from taxon.bundle.reading import reading

FILE = "traffic.json"
FOLDER = "labels"
STABLE = "stable"
FORMAT_VERSION = 1
"""The newest that is read."""

Version = Annotated[int, Field(ge=1, lt=10**18)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Bounds(_Part):
    """What a canary may do worse than the default. The last calls of the canary are compared with as many that the
    default has answered between them.
    """

    window: Annotated[int, Field(ge=10, le=100_000)] = 500
    """The canary's last calls, so many, are looked at."""
    min_calls: Annotated[int, Field(ge=10, le=100_000)] = 100
    """With fewer, nothing is decided."""
    max_error_increase: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """By how much its share of calls that fail without their callers' fault may be above the default's."""
    max_nan_increase: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The same of calls whose scores are not numbers."""
    max_latency_ratio: Annotated[float, Field(ge=1.0, le=1000.0)] = 2.0
    """How many times as long its slowest tenth of answers may take, as its 90th percentile says."""

    @model_validator(mode="after")
    def _can_decide(self) -> "Bounds":
        if self.min_calls > self.window:
            raise ValueError(f"min_calls {self.min_calls} are more than the window of {self.window}")
        return self


class Canary(_Part):
    """A version that answers a share of the calls which name no version."""

    version: Version
    share: Share
    bounds: Bounds = Bounds()
    declared: str = ""
    """When, in ISO 8601. A canary that was rolled back is tried again once it is declared anew."""


class Shadow(_Part):
    """A version that is run on copies of a share of the calls which name no version."""

    version: Version
    share: Share


class Traffic(_Part):
    """What the file holds. A canary and a shadow need a default that somebody has chosen, other than themselves."""

    format_version: Literal[1] = 1
    labels: dict[str, Version] = {}
    canary: Canary | None = None
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _is_against_a_default(self) -> "Traffic":
        stable = self.labels.get(STABLE)
        for role, trial in (("canary", self.canary), ("shadow", self.shadow)):
            if trial and stable is None:
                raise ValueError(f"a {role} needs a version that is labelled {STABLE}: promote one first")
            if trial and trial.version == stable:
                raise ValueError(f"version {stable} is the default already, it cannot be the {role}")
        if self.canary and self.shadow and self.canary.version == self.shadow.version:
            raise ValueError(f"version {self.canary.version} cannot be canary and shadow at once")
        return self

    @property
    def versions(self) -> set[int]:
        """Every version that it names."""
        return {*self.labels.values(), *(trial.version for trial in (self.canary, self.shadow) if trial)}

    def changed(self, **fields: Any) -> "Traffic":
        """With other fields.

        Raises:
            ValueError: They do not go together.
        """
        try:
            return Traffic(**(dict(self) | fields))
        except ValidationError as error:
            raise ValueError(faults(error)) from None

    def labelled(self, label: str, version: int) -> "Traffic":
        """With a label that names a version. The trial of a version that becomes the default is over.

        Raises:
            ValueError: A trial is not possible beside it.
        """
        trials = {"canary": self.canary, "shadow": self.shadow}
        over = {role: None for role, trial in trials.items() if label == STABLE and trial and trial.version == version}
        return self.changed(labels=self.labels | {label: version}, **over)


def read(root: Path, name: str) -> Traffic:
    """What is declared for a model. Nothing if neither the file nor labels of the earlier form are there.

    Raises:
        BundleError: The file, or a label, cannot be read or is not valid.
    """
    path = root / name / FILE
    with reading(path):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            text = None
    return Traffic(labels=_labels_of_folder(root / name / FOLDER)) if text is None else _parsed(text, path)


def _parsed(text: bytes, path: Path) -> Traffic:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(f"{path} has format {version}, this release reads up to {FORMAT_VERSION}: upgrade taxon")
    try:
        return Traffic.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {faults(error)}") from error


def faults(error: ValidationError) -> str:
    """What is wrong, field by field, in one line."""
    found = [(".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)


def _labels_of_folder(folder: Path) -> dict[str, int]:
    with reading(folder):
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    labels = {}
    for path in paths:
        if path.name.startswith("."):
            continue  # half written
        with reading(path):
            try:
                text = path.read_text(encoding="ascii", errors="replace").strip()
            except FileNotFoundError:
                continue  # taken away meanwhile
        if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
            raise BundleError(f"the label {path} must hold a version number, not {text[:20]!r}")
        labels[path.name] = int(text)
    return labels


def change(root: Path, name: str, edit: Callable[[Traffic], Traffic]) -> Traffic:
    """Replaces the file by what `edit` makes of it. Readers see the old or the new one, never a torn file; of two
    changes at once one waits for the other, where folders have locks. A change that changes nothing writes nothing.

    Returns:
        What is declared now.

    Raises:
        BundleError: What is there cannot be read.
        ValueError: Of `edit`; the file is as it was.
        OSError: The repository is not writable, or has no such model; the file is as it was. A folder is not made for
            it: most likely its file system is away, and what was declared would seem to be gone.
    """
    model = root / name
    with folder_lock.held(model):
        before = read(root, name)
        after = edit(before)
        if after != before:
            text = after.model_dump_json(indent=2, exclude_none=True)
            atomic_files.write(model / FILE, f"{text}\n")
        if after != before or (model / FILE).exists():
            shutil.rmtree(model / FOLDER, ignore_errors=True)  # the earlier form: the file counts alone
    return after


def now() -> str:
    """For `declared`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
