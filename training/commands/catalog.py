"""The commands `taxon models` and `taxon label`: what a repository holds, with its figures and its lineage."""

import argparse
import json
import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import ranges
from taxon.bundle import store, version_labels
from taxon.bundle.manifest import BundleError
from taxon.mistaken import in_words
from taxon.training.releases.listing import entries

MAY_FOLD = ("model", "labels", "from")
"""Columns of names, which may be long; the others always hold their headings."""


def main(argv: list[str]) -> int:
    """`taxon models`. Returns 0, or 1 if a bundle is damaged."""
    parser = argparse.ArgumentParser(description="List every version of every model in a repository.")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--name", help="only this model")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    try:
        if options.name and options.name not in store.names(options.models):
            raise BundleError(f"{options.models} has no model {options.name}")
        rows = [
            row
            for name in ([options.name] if options.name else store.names(options.models))
            for row in entries(options.models, name)
        ]
    except (OSError, BundleError) as error:
        sys.stderr.write(f"taxon models: {in_words(error)}\n")
        return 2
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        console = Console()
        console.print(to_table(rows))
        for row in filter(itemgetter("error"), rows):
            message = f"{row['name']}/{row['version']}: {row['error']}"
            console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if any(row["error"] for row in rows) else 0


def label_main(argv: list[str]) -> int:
    """`taxon label`. Returns 0, or 2 if the label or the version cannot be."""
    parser = argparse.ArgumentParser(description="Point a label such as candidate at a version.")
    parser.add_argument("name", help="model name")
    parser.add_argument("version", type=ranges.version)
    parser.add_argument("label", help="lower-case letters, digits, - and _; stable is for `taxon promote`")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    options = parser.parse_args(argv)
    try:
        if options.label == version_labels.STABLE:
            raise ValueError("the label stable is given by `taxon promote`, which compares first")
        store.read(options.models, options.name, options.version)
        version_labels.write(options.models, options.name, options.label, options.version)
    except (OSError, BundleError, ValueError) as error:
        sys.stderr.write(f"taxon label: {in_words(error)}\n")
        return 2
    return 0


def to_table(rows: list[dict[str, Any]]) -> Table:
    """The most telling columns; `--json` has all."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("model", "version", "labels", "accuracy", "calibration", "unknown\nbelow", "variants", "from"):
        table.add_column(column, no_wrap=column not in MAY_FOLD, overflow="fold")
    for row in rows:
        roles = "\n".join([*row["labels"], *(f"{role} {share:.3g}" for role, share in row["trials"].items())])
        if row["error"]:
            table.add_row(row["name"], str(row["version"]), roles, "[red]damaged[/]")
            continue
        table.add_row(
            row["name"],
            str(row["version"]),
            roles,
            _percent(row["accuracy"]),
            "" if row["calibration_error"] is None else f"{row['calibration_error']:.3f}",
            "" if row["unknown_threshold"] is None else f"{row['unknown_threshold']:.2f}",
            "\n".join(row["variants"]),
            escape("\n".join(row["parents"]) or row["run_id"]),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
