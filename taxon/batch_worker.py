"""A process of `taxon classify --models`: takes names of files, reads, decodes, runs, and gives back their rows.

`python -m taxon.batch_worker DESCRIPTOR SETTINGS` with one end of a socket, and the arguments of `Classifier` and the
`base` of the names as JSON. Ends when the other end is closed.
"""

import json
import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

from taxon import freed_memory
from taxon.batch import Classifier, reason_of
from taxon.bundle.manifest import BundleError
from taxon.service.machine import available_cores
from taxon.service.ranking import Ranked
from taxon.service.telemetry import logs
from taxon.service.workers.child_process import begin
from taxon.table.reading import TooLargeError, read
from taxon.table.rows import IMAGE_TOO_LARGE, Row, answered, failed, unreadable

KEPT_BYTES, LARGEST_KEPT_BYTES = 64 * 2**20, 16 * 2**20


def rows(classifier: Classifier, base: str, names: list[str]) -> list[Row]:
    """A row for each file."""
    found: dict[str, Row] = {}
    sent: list[str] = []

    def encoded() -> Iterator[bytes]:
        for name in names:
            try:
                content = read(os.path.join(base, name), classifier.max_bytes)  # noqa: PTH118 - a million times
            except TooLargeError as error:
                found[name] = failed(name, IMAGE_TOO_LARGE, str(error), classifier.variant)
                continue
            except OSError as error:
                found[name] = unreadable(name, error)
                continue
            sent.append(name)
            yield content

    outcomes = classifier.classify(encoded())
    for name, outcome in zip(sent, outcomes, strict=True):
        if isinstance(outcome, Ranked):
            found[name] = answered(
                name,
                classifier.named(outcome),
                outcome.scores,
                unknown=outcome.unknown,
                familiarity=outcome.familiarity,
                variant=classifier.variant,
            )
        else:
            found[name] = failed(name, reason_of(outcome), str(outcome), classifier.variant)
    return [found[name] for name in names]


def main(argv: list[str]) -> int:
    """Serves the process at the other end: first says whether it can, then answers chunk by chunk."""
    begin()
    logs.configure("json", "warning")
    freed_memory.keep(KEPT_BYTES, LARGEST_KEPT_BYTES)
    descriptor, settings = int(argv[0]), json.loads(argv[1])
    base = settings.pop("base")
    with Connection(descriptor) as connection:
        try:
            try:
                classifier = Classifier(**settings)
            except (BundleError, ValueError, OSError) as error:
                connection.send({"refused": str(error)})
                return 1
            connection.send({"cores": available_cores()})
            while True:
                connection.send(rows(classifier, base, connection.recv()))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
