"""`deploy/kubernetes` sets what there is to set, and promises the times that the service keeps. Where kubectl is at
hand it builds the whole.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from taxon.service.config import Settings, parse
from taxon.service.telemetry.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
LABEL = "app.kubernetes.io/name: taxon"


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def settings() -> Settings:
    return parse(re.findall(r"^ {12}- (--\S+)$", read("deployment.yaml"), flags=re.MULTILINE))


def test_a_pod_is_given_the_time_that_its_drain_takes():
    grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", read("deployment.yaml"))[1])
    probe = re.search(
        r"readinessProbe:\n.*\n +periodSeconds: (\d+)\n +failureThreshold: (\d+)", read("deployment.yaml")
    )
    assert settings().drain_delay_seconds > int(probe[1]) * int(probe[2])
    assert grace > settings().drain_delay_seconds + settings().drain_grace_seconds


def test_ports_are_those_of_the_settings():
    assert f"name: page, containerPort: {settings().metrics_port}}}" in read("deployment.yaml")
    assert f'prometheus.io/port: "{settings().metrics_port}"' in read("deployment.yaml")


def test_replicas_follow_a_metric_that_there_is():
    names = {metric.name for metric in Metrics().registry.collect()}
    (asked,) = re.findall(r"metric: \{name: (\w+)\}", read("autoscaler.yaml"))
    assert asked in names
    assert f"as: {asked}" in read("adapter-rule.yaml")


def test_every_selector_means_these_pods():
    """An empty one would be all pods of the namespace."""
    for name in ("deployment.yaml", "service.yaml", "disruption.yaml", "network.yaml"):
        selectors = re.findall(r"^  (?:podS|s)elector:(.*(?:\n    .*)?)", read(name), flags=re.MULTILINE)
        assert [LABEL in selector for selector in selectors] == [True], name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not at hand")
def test_kustomize_builds_it():
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    kinds = re.findall(r"^kind: (\w+)", built, flags=re.MULTILINE)
    assert sorted(kinds) == ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    assert "image: taxon:service-cpu" in built
