"""A real `taxon serve` on loopback, for as long as it is measured."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from taxon import errors
from taxon.tuning.settings import VARIABLE, Layout
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub

START_TIMEOUT_S = 900.0
"""Of every model's proof: engines of a GPU take minutes."""
STOP_TIMEOUT_S = 30.0
PAUSE_S = 0.05
OWN_FLAGS = (
    *("--listen", "127.0.0.1:0", "--bind-when-ready", "true", "--drain-grace-seconds", "1"),
    *("--log-format", "json", "--log-level", "info"),
)
"""Behind all others, so that they win: what is read here must be said."""


class ServerError(Exception):
    """A server that does not start, or does not serve the model. The message says what it said last."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers."""

    address: str
    layout: Layout
    model: pb.Model


@contextmanager
def serving(models: Path, model: str, flags: Sequence[str]) -> Iterator[Serving]:
    """Starts a server with these flags, waits until it serves the model, and ends it.

    `TAXON_…` variables of this process are kept from it: what it runs with is what the evidence names.

    Raises:
        ServerError: See there.
    """
    with tempfile.TemporaryDirectory(prefix="taxon-tune-") as folder:
        log = Path(folder, "log")
        words = [sys.executable, "-m", "taxon.cli", "serve", *flags, "--models", str(models), *OWN_FLAGS]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE)}
        with (
            log.open("wb") as output,
            subprocess.Popen(words, stdout=output, stderr=output, env=environment) as process,  # noqa: S603 - our own
        ):
            try:
                told = _listening(process, log)
                yield Serving(
                    f"127.0.0.1:{told['port']}", _layout(told), _model(f"127.0.0.1:{told['port']}", model, log)
                )
            finally:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _listening(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    """What it says when it has tried every model."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        ended = process.poll() is not None
        for entry in _entries(log):
            if entry.get("event") == "listening":
                return entry
        if ended:
            raise ServerError(f"taxon serve has ended: {_last_words(log)}")
        time.sleep(PAUSE_S)
    raise ServerError(f"taxon serve has not tried every model within {START_TIMEOUT_S:.0f} s: {_last_words(log)}")


def _layout(told: dict[str, Any]) -> Layout:
    return Layout(told["workers"], told["decoders"], told["fronts"], max(told["buckets"]))


def _model(address: str, name: str, log: Path) -> pb.Model:
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassificationServiceStub(channel)
        try:
            model: pb.Model = stub.GetModel(pb.GetModelRequest(model_name=name), timeout=10).model
        except grpc.RpcError as error:
            raise ServerError(f"{errors.from_call(error)}; {_last_words(log)}") from None
    return model


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _last_words(log: Path) -> str:
    """Errors and warnings, or the last lines if there are none."""
    told = [entry for entry in _entries(log) if entry.get("level") in ("error", "critical", "warning")]
    if told:
        return "; ".join(json.dumps(entry, ensure_ascii=False) for entry in told[-3:])
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]) or "it said nothing"
