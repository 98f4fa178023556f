"""Rounds by Flower as examples/flower has them, over separate processes: a link, a node for each participant, `flwr
run`.

`TAXON_FLOWER` is the Python of Flower's environment, made as the example's README says; without it they are skipped.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.walkthrough import ROOT, blocks, script

FLOWER = os.environ.get("TAXON_FLOWER", "")
README = ROOT / "examples/flower/README.md"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FLOWER, reason="TAXON_FLOWER is not set")]
PATIENCE = 1200.0
"""Seconds: two rounds take one minute of two quiet cores."""
POISON = """
import dataclasses
import importlib.abc
import importlib.util
import sys


class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "taxon.training.runs.checkpoint":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            load = module.Checkpoint.load

            def poisoned(path):
                found = load(path)
                if path.name != "best.pt":
                    return found
                key, tensor = next(iter(found.state.items()))
                return dataclasses.replace(found, state={**found.state, key: tensor * float("nan")})

            module.Checkpoint.load = staticmethod(poisoned)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Poison())
"""
"""What a participant may do to the program that it runs."""


@pytest.fixture
def place(tmp_path):
    """An empty folder beside the example; whatever was started there ends with the test."""
    if shutil.which("curl") is None:
        pytest.skip("the page calls curl")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    started = []
    yield lambda words, **settings: _start(tmp_path, started, words, **settings)
    for process in started:
        _kill(process)


def _start(folder, started, words, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAXON_", "FLWR_"))}
    environment |= {"PATH": f"{Path(FLOWER).absolute().parent}:{environment['PATH']}", "FLWR_TELEMETRY_ENABLED": "0"}
    environment |= {"FLWR_HOME": str(folder / "trial/flwr"), "OMP_NUM_THREADS": "1", **variables}
    with (folder / f"{len(started)}.log").open("w") as log:
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    process.log, process.folder = Path(log.name), folder
    started.append(process)
    return process


def _kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ends_well(process):
    assert process.wait(timeout=PATIENCE) == 0, process.log.read_text()[-5000:]
    return process.log.read_text()


def _says(process, text):
    """Waits until a program has printed it."""
    until = time.monotonic() + PATIENCE
    while text not in process.log.read_text():
        assert process.poll() is None, process.log.read_text()[-5000:]
        assert time.monotonic() < until, process.log.read_text()[-5000:]
        time.sleep(0.2)


def _port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_page_works_as_written_and_flowers_weights_are_those_of_the_files(place, tmp_path):
    free = sorted(int(_port()) for _ in range(8))
    said = _ends_well(place(["bash", "-c", script(README)], LINK=str(free[0]), NODE=str(free[-1] + 1)))
    assert "round 2: the average of 3" in said
    by_files = """
        set -eu
        now=trial/run/best.pt
        for round in 1 2; do
            for who in ann bob eve; do
                taxon train --recipe trial/recipe.toml --data trial/$who.csv --weights $now --out files/$round-$who
            done
            taxon fuse --base $now --contributions files/$round-*/best.pt --data trial/digits/val --out files/$round.pt
            now=files/$round.pt
        done
        python -c "
import torch
ours, theirs = (torch.load(file, weights_only=True)['state'] for file in ('files/2.pt', 'trial/fused.pt'))
assert ours.keys() == theirs.keys()
print('apart', max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours))
"
    """
    said = _ends_well(place(["bash", "-c", by_files]))
    assert float(said.rpartition("apart ")[2]) < 1e-6


def test_one_who_is_killed_and_one_who_sends_nan_do_not_stop_the_others(place, tmp_path):
    setting_up = next(text for language, text in blocks(README) if language == "sh")
    _ends_well(place(["bash", "-euc", setting_up]))
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison/sitecustomize.py").write_text(POISON)
    (tmp_path / "trial/mal.csv").write_text((tmp_path / "trial/ann.csv").read_text())
    link = _port()
    (tmp_path / "trial/flwr/config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    server = place(["flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", link])
    _says(server, "startup complete")
    recipe, nodes = tmp_path / "trial/recipe.toml", {}
    for who in ("ann", "bob", "eve", "mal"):
        config = f'data="{tmp_path}/trial/{who}.csv" recipe="{recipe}"'
        words = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}", "--port", _port()]
        more = {"PYTHONPATH": str(tmp_path / "poison")} if who == "mal" else {}
        nodes[who] = place([*words, "--node-config", config], **more)
    settings = f'base="{tmp_path}/trial/run/best.pt" out="{tmp_path}/trial/fused.pt" rounds=3 participants=4'
    run = place(["flwr", "run", "examples/flower", "here", "--stream", "--run-config", settings])
    _says(run, "round 1: the average of 3")
    _says(nodes["eve"], "epoch 2/2")  # its part of the first round
    _kill(nodes["eve"])
    said = _ends_well(run)
    assert said.count("holds values that are no finite numbers") == 3
    assert "round 3: the average of 2" in said
    assert (tmp_path / "trial/fused.pt").is_file()
