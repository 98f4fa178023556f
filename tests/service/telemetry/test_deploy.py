"""What `deploy/` asks of Prometheus is what a server exposes. With promtool at hand (TAXON_PROMTOOL, or on the path) it
judges the rules and the page too.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from taxon.inference import open_inference_service_pb2
from taxon.service.telemetry.gpus import Gpu, Gpus
from taxon.service.telemetry.metrics import Metrics
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import explanation_service_pb2, feedback_service_pb2, model_admin_service_pb2
from tests.fakes import COLORS, picture

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ALERTS_TEST = ROOT / "deploy/prometheus/alerts_test.yml"
DASHBOARD = ROOT / "deploy/grafana/taxon.json"
OBSERVABILITY = ROOT / "docs/observability.md"
PROMTOOL = os.environ.get("TAXON_PROMTOOL") or shutil.which("promtool")
FROM_SCRAPES = {"instance", "job", "le"}
SUFFIXES = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not at hand")


def exposed() -> dict[str, set[str]]:
    """The labels of every series that a server can expose, by name."""
    metrics = Metrics()
    metrics.registry.register(Gpus(lambda: iter([Gpu(0, 2, 1, 0.5)])))
    series = {}
    for collector in metrics.registry._collector_to_names:
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(collector, "_labels", ())
            labels = {"gpu"} if isinstance(collector, Gpus) else set(labels)
            series |= {family.name + suffix: labels for suffix in SUFFIXES[family.type]}
    return series


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
    rules = re.findall(r"^ +expr: (\|\n(?: {10,}.*\n)+|.*\n)", ALERTS.read_text(), flags=re.MULTILINE)
    assert len(rules) == len(alerts()) + len(records())
    return asked + rules


def records() -> set[str]:
    return set(re.findall(r"- record: ([\w:]+)", ALERTS.read_text()))


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", ALERTS.read_text())


def test_only_inputs_are_told_of_as_inputs():
    """Health checks, metadata and what operators do are counted in the same series."""
    asked = [chosen for query in queries() for chosen in re.findall(r"\btaxon_requests_total\b(\{[^}]*\})?", query)]
    methods = {(found := re.search(r'method=~"([^"]*)"', chosen)) and found[1] for chosen in asked}
    assert len(asked) > 5
    (pattern,) = methods
    files = (pb, explanation_service_pb2, feedback_service_pb2, model_admin_service_pb2)
    known = {
        name
        for file in (*files, open_inference_service_pb2, health_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for name in service.methods_by_name
    }
    assert {name for name in known if re.fullmatch(pattern, name)} == {
        *("Classify", "BatchClassify", "ModelInfer", "ModelStreamInfer", "Explain", "SubmitFeedback"),
    }


def test_every_query_names_series_and_labels_that_there_are():
    series, seen = exposed(), set()
    for query in queries():
        names, recorded = re.findall(r"\btaxon_\w+", query), set(re.findall(r"\btaxon:[\w:]+", query))
        assert names or recorded or not query or "ALERTS{" in query
        assert recorded <= records()
        if recorded or not names:
            continue
        seen |= set(names)
        assert set(names) <= set(series), query
        known = set().union(*(series[name] for name in names)) | FROM_SCRAPES
        for name, chosen in re.findall(r"\b(taxon_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", chosen)) <= series[name] | FROM_SCRAPES, query
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            if "count_values" not in query:
                assert set(grouped.split(", ")) <= known, query
    assert len(seen) > 25


def test_every_alert_has_a_series_that_fires_it_and_a_line_in_the_runbook():
    tested = re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", ALERTS_TEST.read_text())
    assert sorted(tested) == sorted(alerts())
    assert sorted(re.findall(r"^\| `(Taxon\w+)`", OBSERVABILITY.read_text(), flags=re.MULTILINE)) == sorted(alerts())


def test_the_table_of_metrics_has_every_metric_and_no_other():
    told = set(re.findall(r"`(taxon_\w+)(?:\{[^}]*\})?`", OBSERVABILITY.read_text().partition("## Alerts")[0]))
    assert told == {re.sub("_(bucket|sum|count)$", "", name) for name in exposed()}


@needs_promtool
@pytest.mark.parametrize("words", [("check", "rules", ALERTS), ("test", "rules", ALERTS_TEST)])
def test_promtool_agrees(words):
    done = subprocess.run([PROMTOOL, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
async def test_promtool_finds_the_page_clean(serve, models):
    async with serve(models, "--metrics-port", "0") as running:
        await running.stub.Classify(pb.ClassifyRequest(image=picture(COLORS["red"])), timeout=10)
        page = await asyncio.to_thread(running.page)
    check = [PROMTOOL, "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, check, input=page, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
