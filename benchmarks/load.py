"""The load generator of `taxon.bench` as a process of its own, for benchmarks that run beside it.

    python -m benchmarks.load JSON       prints one JSON object: see `taxon.bench.figures`

JSON: `address` (HOST:PORT), `path` of the method, `bodies` (files, each a serialized request), `http1` (POST them over
HTTP/1.1), and the fields of `taxon.bench.load.Plan`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.http1 import Http1
from taxon.bench import figures, load
from taxon.bench.http2 import Connection, Target, message
from taxon.bench.load import Plan
from taxon.bench.wire import peer


def run(address: str, path: str, bodies: Sequence[str], *, http1: bool = False, **plan: float) -> figures.Figures:
    """Sends the load and says what came of it."""
    sent = [Path(file).read_bytes() for file in bodies]
    target = Target(peer(address), address, path)
    planned = Plan(**plan)  # type: ignore[arg-type] - whole numbers among them
    if http1:
        return figures.figures(load.run(target, sent, planned, Http1))
    return figures.figures(load.run(target, [message(body) for body in sent], planned, Connection))


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
