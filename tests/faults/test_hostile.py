"""A hundred thousand hostile messages and pictures: no crash, no memory that grows, no status that is not in the table.

`TAXON_FAULT_MESSAGES=100000 make test-faults` makes so many; by default there are a few thousand.
"""

import multiprocessing
import os
import socket
import sys
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor

import pytest

from taxon.service.access import keys_main
from taxon.service.machine import private_bytes
from tests.fakes import toy_bundle
from tests.faults.hostile import CHUNK, MIB, Where, chunk
from tests.faults.served import until
from tests.tensor_models import free_length, mixing, simple

pytestmark = pytest.mark.faults

MESSAGES = int(os.environ.get("TAXON_FAULT_MESSAGES", "4000"))
SHARES = {"pixels": 0.35, "classify": 0.2, "batch": 0.1, "infer": 0.2, "admin": 0.05, "raw": 0.1}


def chunks():
    for kind, share in SHARES.items():
        left, number = round(MESSAGES * share), 0
        while left > 0:
            yield kind, number, min(CHUNK, left)
            left, number = left - CHUNK, number + 1


def test_hostile_messages(serve, models, tmp_path, capsys):
    toy_bundle(models)
    toy_bundle(models, "numbers", features=True)
    simple(models)
    free_length(models)
    mixing(models)
    keys = tmp_path / "keys.json"
    words = ["--keys", str(keys), "--groups", "classify,inference,admin"]
    assert keys_main.main(["add", "fuzz", *words]) == 0
    key = capsys.readouterr().out.split()[-1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin_port = free.getsockname()[1]
    flags = ["--keys", keys, "--admin-port", admin_port, "--model-control", "explicit", "--log-level", "error"]
    server = serve("--workers", "2", *flags)
    until(lambda: len(server.workers()) == 2)
    workers = server.workers()
    where = Where(server.address, f"127.0.0.1:{admin_port}", key)
    seen, decoding, used = defaultdict(Counter), [], []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        running = [(one[0], pool.submit(chunk, *one, where)) for one in chunks()]
        for kind, future in running:
            outcomes, most = future.result()
            seen[kind] += outcomes
            if kind == "pixels":
                decoding.append(most)
            used.append(private_bytes([server.process.pid, *workers]))
    for kind, outcomes in seen.items():
        sys.stdout.write(f"{kind}: {sum(outcomes.values())}, {dict(outcomes.most_common())}\n")
    sys.stdout.write(
        f"memory {used[0] / MIB:.0f} MiB, at most {max(used) / MIB:.0f}, {used[-1] / MIB:.0f} at the end; "
        f"processes that decode {decoding[0] / MIB:.0f} MiB, {max(decoding) / MIB:.0f} at most\n"
    )
    assert sum(outcomes.total() for outcomes in seen.values()) >= 0.9 * MESSAGES  # small kinds run out of cases
    assert all(outcomes["OK"] and len(outcomes) > 2 for outcomes in seen.values())
    assert server.process.poll() is None
    assert server.workers() == workers
    assert max(used) - used[0] < 128 * MIB
    assert max(decoding) - decoding[0] < 128 * MIB
    assert server.stop() == 0
