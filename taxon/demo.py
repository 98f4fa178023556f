"""The command `taxon demo`: the whole product on the digits that ship inside scikit-learn, by the very
commands that a user types. Each is printed before it runs.
"""

import argparse
import asyncio
import dataclasses
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from taxon.bundle import store
from taxon.choice import Choice
from taxon.classify import Row, classify_inputs, find_inputs, to_table
from taxon.connection import Connection

ROWS_SHOWN = 12
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15


def main(argv: list[str]) -> int:
    """Runs the demo. Returns 0 if every step worked."""
    parser = argparse.ArgumentParser(description="Train, export, serve and classify handwritten digits.")
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="emptied first; holds all results")
    folder = parser.parse_args(argv).folder
    console = Console()
    shutil.rmtree(folder, ignore_errors=True)
    models, run, digits = folder / "models", folder / "run", folder / "digits"
    started = time.monotonic()
    try:
        _taxon(console, "train", "--digits-folder", digits, "--out", run)
        _taxon(console, "export", run, "--models", models, "--name", "digits")
        with _serving(console, models, folder) as server:
            pictures = find_inputs([digits / "val"], labelled=True)
            asked = classify_inputs(pictures, Connection(server), Choice(max_results=3), timeout_s=10, concurrency=16)
            rows = asyncio.run(asked)
            rows = [dataclasses.replace(row, path=row.path.relative_to(digits)) for row in rows]
    except subprocess.CalledProcessError as error:
        console.print(
            f"[red]taxon demo: this step failed with exit code {error.returncode}: {escape(shlex.join(error.cmd))}"
        )
        return 1
    _report(console, rows, models, time.monotonic() - started)
    return 1 if any(row.error for row in rows) else 0


def _taxon(console: Console, *words: str | Path) -> None:
    console.rule(f"[bold]taxon {escape(shlex.join(map(str, words)))}", align="left")
    subprocess.run(_command(*words), check=True)  # noqa: S603 - our own command line


def _command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "taxon.cli", *map(str, words)]


@contextmanager
def _serving(console: Console, models: Path, folder: Path) -> Iterator[str]:
    """A server on a free port, stopped at the end; yields its address."""
    port_file, log = folder / "port", folder / "serve.log"
    words = ("serve", "--models", models, "--listen", "127.0.0.1:0", "--port-file", port_file)
    console.rule(f"[bold]taxon {escape(shlex.join(map(str, words)))}", align="left")
    with log.open("wb") as output, subprocess.Popen(_command(*words), stdout=output, stderr=output) as process:  # noqa: S603
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > until:
                    console.print(f"[red]the server did not start:[/]\n{escape(log.read_text())}")
                    raise subprocess.CalledProcessError(process.poll() or 1, _command(*words))
                time.sleep(0.05)
            server = f"127.0.0.1:{port_file.read_text().strip()}"
            subprocess.run(_command("health", "--server", server, "--wait-s", str(START_TIMEOUT_S)), check=True)  # noqa: S603
            console.print(f"serving on {server}")
            yield server
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _report(console: Console, rows: list[Row], models: Path, seconds: float) -> None:
    console.rule("[bold]held-out digits, through the running server", align="left")
    console.print(to_table(rows[:: max(1, len(rows) // ROWS_SHOWN)][:ROWS_SHOWN], labelled=True))
    correct = sum(row.correct for row in rows)
    metrics = store.read(models, "digits", 1).manifest.metrics
    console.print(f"\n[bold]accuracy[/] {correct / len(rows):.2%} ({correct} of {len(rows)} held-out digits)")
    console.print(
        f"[bold]parity[/]   torch and ONNX Runtime agree on {metrics['parity_top1_agreement']:.2%} of "
        f"{metrics['parity_file_count']:.0f} pictures; largest score difference "
        f"{metrics['parity_max_score_difference']:.1e}"
    )
    console.print(f"[bold]time[/]     {seconds:.0f} s\n")
    console.print(
        "Next, with your own pictures in data/<class>/*.jpg:\n"
        "  taxon train --data data --model resnet18 --out runs/first\n"
        "  taxon export runs/first --models models --name first\n"
        "  taxon serve --models models\n"
        "  taxon classify picture.jpg --server localhost:50051",
        highlight=False,
    )
