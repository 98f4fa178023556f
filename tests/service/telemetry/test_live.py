"""Prometheus scrapes a server that is asked; the dashboard's panels and the rules find there what they are about."""

import asyncio
import contextlib
import json
import math
import os
import re
import shutil
import socket
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import grpc
import onnx
import pytest
from onnx import numpy_helper

from taxon.bundle import traffic, version_labels
from taxon.bundle.manifest import Distribution
from taxon.bundle.traffic import Shadow
from taxon.service.access import keys_main
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.certificates import Authority
from tests.fakes import toy_bundle

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/taxon.json").read_text())
PROMETHEUS = os.environ.get("TAXON_PROMETHEUS") or shutil.which("prometheus")
TARGETS = [(panel, target) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
USUAL, POISON = (3.0, 0.0, 0.0, 0.0), (3.0, 0.0, 0.0, 1e10)
PATIENCE_S = 240
RARE = re.compile("_gpu_|_dropped_")
"""GPUs are told of where there are some, and what was dropped once something was."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus, nor TAXON_PROMETHEUS"),
]


@pytest.fixture
def models(tmp_path):
    """Version 1 is served; 2, whose scores may be no numbers, is its shadow; 3 is refused."""
    root, spread = tmp_path / "models", {"score": Distribution(edges=(0.5, 0.9), counts=(0, 10, 0))}
    first = toy_bundle(root, features=True, distributions=spread)
    graph = onnx.load_from_string(first.read("model.onnx"))
    (weights,) = [constant for constant in graph.graph.initializer if constant.name == "weights"]
    values = numpy_helper.to_array(weights).copy()
    values[3] = 1e30
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    toy_bundle(root, features=True, graph=graph.SerializeToString())
    toy_bundle(root, features=True, golden_shift=0.5)
    version_labels.write(root, "colors", "stable", 1)
    traffic.change(root, "colors", lambda before: before.changed(shadow=Shadow(version=2, share=1.0)))
    return root


class Prometheus:
    """One that scrapes a server by HTTPS, with a key, every four seconds."""

    def __init__(self, folder: Path, page_port: int, authority: Path, key: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "key").write_text(key)
        asked = {
            "global": {"scrape_interval": "4s", "scrape_timeout": "4s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {
                    "job_name": "taxon",
                    "scheme": "https",
                    "authorization": {"credentials_file": str(folder / "key")},
                    "tls_config": {"ca_file": str(authority), "server_name": "localhost"},
                    "static_configs": [{"targets": [f"127.0.0.1:{page_port}"]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(asked))
        self.words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series"]
        self.words += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"]

    def ask(self, path: str, **words: str) -> object:
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(words)}") as reply:
            return json.load(reply)["data"]

    def found(self, expression: str) -> list[dict[str, str]]:
        """The labels of what a panel would show: numbers, of some moment."""
        expression = expression.replace("$__rate_interval", "30s").replace("$instance", ".*").replace("$model", ".*")
        result = self.ask("query", query=expression)["result"]
        return [series["metric"] for series in result if math.isfinite(float(series["value"][1]))]


async def load(stub, key):
    """What is answered, what is not a number, what is wrong, and what has no key; over and over."""
    bearer = (("authorization", f"Bearer {key}"),)
    while True:
        for values, version, metadata in (
            (USUAL, "", bearer),
            (POISON, "2", bearer),
            ((), "", bearer),
            (USUAL, "", ()),
        ):
            features = pb.Features(values=values)
            request = pb.ClassifyRequest(features=features, model_name="colors", model_version=version)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.Classify(request, timeout=10, metadata=metadata)
        await asyncio.sleep(0.1)


async def test_every_panel_and_every_rule_finds_its_series(serve, models, tmp_path, capsys):
    authority, keys = Authority(tmp_path), {}
    made = authority.sign("localhost")
    for name, group in (("app", "classify"), ("prometheus", "metrics")):
        assert keys_main.main(["add", name, "--keys", str(tmp_path / "keys.json"), "--groups", group]) == 0
        keys[name] = capsys.readouterr().out.split()[-1]
    flags = ["--tls-cert", str(made.cert), "--tls-key", str(made.key), "--keys", str(tmp_path / "keys.json")]
    credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes())
    named = [("grpc.ssl_target_name_override", "localhost")]
    async with (
        serve(models, *flags, "--metrics-port", "0") as running,
        grpc.aio.secure_channel(running.address, credentials, named) as channel,
    ):
        prometheus = Prometheus(tmp_path, running.server.metrics_port, authority.cert, keys["prometheus"])
        process = await asyncio.create_subprocess_exec(PROMETHEUS, *prometheus.words)
        loading = asyncio.create_task(load(ClassificationServiceStub(channel), keys["app"]))
        try:
            shown = await found(prometheus)
            rules = await asyncio.to_thread(prometheus.ask, "rules")
            there = set(await asyncio.to_thread(prometheus.ask, "label/__name__/values"))
        finally:
            loading.cancel()
            process.terminate()
            await process.wait()
    for panel, target in TARGETS:
        if not RARE.search(target["expr"]):
            labels = set().union(*shown[panel["title"], target["refId"]], {"Time", "Value", "__name__"})
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]
            for step in panel.get("transformations", ()):
                assert set(step["options"]["indexByName"]) | set(step["options"]["renameByName"]) <= labels
    judged = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(judged) > 20
    assert {(rule["name"], rule["health"], rule.get("lastError")) for rule in judged if rule["health"] != "ok"} == set()
    asked = set(re.findall(r"\btaxon_\w+", "".join(rule["query"] for rule in judged)))
    assert {name for name in asked - there if not RARE.search(name)} == set()


async def found(prometheus: Prometheus) -> dict[tuple[str, str], list[dict[str, str]]]:
    """What each panel shows once it shows anything, but for what is rare."""
    missing = {
        (panel["title"], target["refId"]): target["expr"]
        for panel, target in TARGETS
        if not RARE.search(target["expr"])
    }
    shown = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while missing:
                await asyncio.sleep(0.5)
                for place, expression in [*missing.items()]:
                    try:
                        series = await asyncio.to_thread(prometheus.found, expression)
                    except (URLError, ConnectionError):
                        break
                    if series:
                        shown[place] = series
                        del missing[place]
    except TimeoutError:
        pytest.fail(f"no data for {sorted(missing)}")
    return shown
