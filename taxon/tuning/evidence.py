"""What is written down: the configuration that is recommended, and why."""

import dataclasses
import json
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxon import __version__, extras
from taxon.tuning.search import Found, Measured
from taxon.tuning.settings import Tried

CONFIGURATION, JSON, TEXT = "taxon.env", "evidence.json", "evidence.md"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
HOW_TO_USE = "# docker run --env-file taxon.env …; systemd: EnvironmentFile=…; sh: set -a; . ./taxon.env; taxon serve …"


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What was to be found."""

    model: str
    """`name/version`."""
    sent: str
    p99_ms: float
    min_accuracy: float | None
    flags: tuple[str, ...]
    """That every server was given."""
    cores: int
    seconds: float


def write(folder: Path, asked: Asked, found: Found) -> None:
    """Writes all three files; the folder is made.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps(document(asked, found), indent=1) + "\n", encoding="utf-8")
    (folder / TEXT).write_text(text(asked, found), encoding="utf-8")
    (folder / CONFIGURATION).write_text(configuration(asked, found), encoding="utf-8")


def configuration(asked: Asked, found: Found) -> str:
    """Variables of `taxon serve`, in the form that Docker, systemd and shells read."""
    head = [f"# taxon tune: {conclusion(asked, found)}", HOW_TO_USE]
    if asked.flags:
        head.append(f"# Measured with, and to be used with: {' '.join(asked.flags)}")
    if not found.chosen.variables:
        head.append("# The defaults are the best of what was tried: there is nothing to set.")
    return "\n".join([*head, *(f"{name}={value}" for name, value in found.chosen.variables.items())]) + "\n"


def conclusion(asked: Asked, found: Found) -> str:
    """One sentence."""
    objective = f"99 % of the calls within {asked.p99_ms:g} ms"
    if not found.rate:
        return f"nothing that was tried answers {objective}, at any rate"
    gain = f", {found.gain:.2f} times what the defaults answer" if found.gain else "; the defaults never do"
    if found.chosen == found.default:
        gain = ""
    return f"{asked.model} on {asked.cores} cores: {found.chosen}: {found.rate:.0f} calls/s with {objective}{gain}"


def text(asked: Asked, found: Found) -> str:
    """For people, in Markdown."""
    rows = [
        f"| {stage} | `{tried}` | {', '.join(sorted({one.variant for one in seen}))} | {len(seen)} "
        f"| {_median(seen, 'rate')} | {_median(seen, 'p99_ms')} | {_median(seen, 'saturated')} |"
        for (stage, tried), seen in _grouped(found).items()
    ]
    floor = "" if asked.min_accuracy is None else f" Variants below an accuracy of {asked.min_accuracy} were left out."
    return "\n".join(
        [
            "# What taxon tune has found",
            "",
            f"{conclusion(asked, found)}.",
            "",
            f"Sent: {asked.sent}; Poisson arrivals, {asked.seconds:g} s a run, from the same machine: what the "
            f"generator took of its cores is lacking here.{floor} The prediction is the median of runs that had no "
            "part in the choice.",
            "",
            "| stage | settings | variant | times | calls/s | p99, ms | saturated, calls/s |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"To check: start the server so, then `taxon bench 127.0.0.1:50051 --p99-ms {asked.p99_ms:g}`.",
            "",
        ]
    )


def document(asked: Asked, found: Found) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "asked": dataclasses.asdict(asked),
        "chosen": found.chosen.named,
        "is_default": found.chosen == found.default,
        "gain": found.gain and round(found.gain, 3),
        "predicted_calls_per_s": found.rate,
        "measured": [{**dataclasses.asdict(seen), "tried": seen.tried.named} for seen in found.measured],
        "conditions": conditions(),
    }


def conditions() -> dict[str, Any]:
    """What it holds for."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "taxon": __version__,
        **extras.versions(RUNTIMES),
        "processor": processor(),
    }


def processor() -> str:
    """The kinds that this machine has; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return ", ".join(sorted({line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}))


def _grouped(found: Found) -> Mapping[tuple[str, Tried], list[Measured]]:
    grouped: dict[tuple[str, Tried], list[Measured]] = {}
    for seen in found.measured:
        grouped.setdefault((seen.stage, seen.tried), []).append(seen)
    return grouped


def _median(seen: list[Measured], figure: str) -> str:
    values = [value for one in seen if (value := getattr(one, figure)) is not None]
    return f"{statistics.median(values):.1f}" if values else "-"
