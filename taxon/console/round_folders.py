"""Rounds of `taxon round` in a folder, by the files that they leave. Training's own reader would bring torch along."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from taxon.console.run_folders import json_object

STATE, REPORT = "round.json", "report.html"
CHANGED = ("merged", "relabelled", "withdrawn")
"""Of a round's counts: pictures that its data has and the data before had not, or otherwise."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round says of itself."""

    number: int
    facts: dict[str, Any]
    """The content of `round.json`; empty if it cannot be read."""
    has_report: bool
    fault: str = ""
    """Why it cannot be read."""

    @property
    def name(self) -> str:
        """Of the model; empty if unknown."""
        return str(self.facts.get("name", ""))

    @property
    def outcome(self) -> str:
        """`promoted`, `refused`, `nothing` or `abandoned`; empty before its end."""
        return str(self.facts.get("outcome") or "")

    @property
    def has_learnt(self) -> bool:
        """Whether it has trained on what was decided before it, and come to an end."""
        return self.outcome in ("promoted", "refused")

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""
        reasons = self.facts.get("reasons")
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else []

    @property
    def changed(self) -> int:
        """Pictures that were new to its data, or changed."""
        counts = self.facts.get("counts")
        numbers = [counts.get(key) for key in CHANGED] if isinstance(counts, dict) else []
        return sum(number for number in numbers if isinstance(number, int))

    @property
    def held_out(self) -> dict[str, Any]:
        """What came of the comparison on held-out pictures; empty if there was none."""
        verdict = self.facts.get("verdict")
        held_out = verdict.get("held_out") if isinstance(verdict, dict) else None
        return held_out if isinstance(held_out, dict) else {}

    @property
    def started_at(self) -> float:
        """Seconds since 1970; 0 if it does not say."""
        try:
            return datetime.fromisoformat(str(self.facts.get("started"))).timestamp()
        except ValueError:
            return 0.0


def found(root: Path) -> list[Round]:
    """Every round, the newest first; none if the folder is not there yet.

    Raises:
        OSError: `root` cannot be read.
    """
    there = [entry for entry in root.iterdir() if entry.name.isdecimal()] if root.exists() else []
    rounds = (_read(entry) for entry in there if (entry / STATE).is_file())
    return sorted(rounds, key=lambda one: -one.number)


def _read(folder: Path) -> Round:
    number, has_report = int(folder.name), (folder / REPORT).is_file()
    try:
        return Round(number, json_object(folder / STATE), has_report)
    except (OSError, ValueError) as error:
        return Round(number, {}, has_report, f"{STATE} is damaged or cannot be read: {error}")
