"""What a result holds for: the command, the versions and the machine; and how it is told."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from taxon import extras
from taxon.service.machine import available_cores
from taxon.tuning.evidence import processor

PACKAGES = (
    *("taxon", "torch", "torchvision", "onnxruntime", "onnxruntime-gpu", "grpcio", "protobuf"),
    *("pillow", "numpy", "simplejpeg", "cykooz-resizer"),
)


def conditions() -> dict[str, object]:
    """For the JSON of a result; folders are named without where they lie."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in sys.orig_argv[1:])
    return {
        "command": shlex.join(["python", *words]),
        "versions": {"python": platform.python_version(), **extras.versions(PACKAGES)},
        "cores": available_cores(),
        "processor": processor(),
    }


def tell(report: Mapping[str, object], out: Path | None, **apart: object) -> None:
    """Prints a result as one line of JSON, and writes it into a file, if there is to be one, with what would make the
    line too long.
    """
    if out:
        out.write_text(json.dumps({**report, **apart}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
