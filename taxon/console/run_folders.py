"""Runs of `taxon train` and `taxon round` in a folder, by the files that they leave. Training's own reader would bring
torch along.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS, EPOCHS, REPORT = "run.json", "metrics.jsonl", "report/index.html"
ROUND = "run"
"""Where `taxon round` trains, in the folder of each round."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What a run says of itself."""

    name: str
    """Of the folder, seen from where all of them are: `first`, or `1/run` of a round."""
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
    there = [*root.iterdir()]
    folders = [folder for folder in (*there, *(one / ROUND for one in there)) if (folder / FACTS).is_file()]
    runs = (read(folder, folder.relative_to(root).as_posix()) for folder in folders)
    return sorted(runs, key=lambda run: str(run.facts.get("created", "")), reverse=True)


def read(folder: Path, name: str) -> RunFolder:
    """One run, finished or not."""
    try:
        facts = json_object(folder / FACTS)
        figures = json_object(folder / "report/metrics.json") if (folder / "report/metrics.json").is_file() else {}
        lines = (folder / EPOCHS).read_text(encoding="utf-8").splitlines() if (folder / EPOCHS).is_file() else []
        epochs = tuple(json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        return RunFolder(name, {}, (), {}, has_report=False, fault=f"damaged or cannot be read: {error}")
    return RunFolder(name, facts, epochs, figures, has_report=(folder / REPORT).is_file())


def json_object(file: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds no object of JSON.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no object")
    return content
