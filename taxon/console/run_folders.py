"""Runs of `taxon train` below a folder, by the files that they leave. Training's own reader would bring torch along."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS, EPOCHS, REPORT = "run.json", "metrics.jsonl", "report/index.html"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What a run says of itself."""

    name: str
    """Of the folder."""
    facts: dict[str, Any]
    """The content of `run.json`; empty if it cannot be read."""
    epochs: tuple[dict[str, Any], ...]
    """The lines of `metrics.jsonl`."""
    figures: dict[str, Any]
    """The content of `report/metrics.json`; empty before there is a report."""
    has_report: bool
    fault: str = ""
    """Why a file cannot be read."""

    @property
    def id(self) -> str:
        """What bundles call it by; empty if unknown."""
        return str(self.facts.get("run_id", ""))


def found(root: Path) -> list[RunFolder]:
    """Every run, newest first.

    Raises:
        OSError: `root` cannot be read.
    """
    folders = (folder for folder in root.iterdir() if (folder / FACTS).is_file())
    return sorted(map(read, folders), key=lambda run: str(run.facts.get("created", "")), reverse=True)


def read(folder: Path) -> RunFolder:
    """One run, finished or not."""
    try:
        facts = _object(folder / FACTS)
        figures = _object(folder / "report/metrics.json") if (folder / "report/metrics.json").is_file() else {}
        lines = (folder / EPOCHS).read_text(encoding="utf-8").splitlines() if (folder / EPOCHS).is_file() else []
        epochs = tuple(json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        return RunFolder(folder.name, {}, (), {}, has_report=False, fault=f"damaged or cannot be read: {error}")
    return RunFolder(folder.name, facts, epochs, figures, has_report=(folder / REPORT).is_file())


def _object(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no object")
    return content
