"""`deploy/kserve` names one runtime in both of its files, and starts the service with settings that it takes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxon.service.config import parse

FOLDER = Path(__file__).parents[2] / "deploy/kserve"
RUNTIME = yaml.safe_load((FOLDER / "serving-runtime.yaml").read_text())
SERVICE = yaml.safe_load((FOLDER / "inference-service.yaml").read_text())


def test_the_service_asks_for_what_the_runtime_has():
    model = SERVICE["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] in {one["name"] for one in RUNTIME["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]


def test_a_pod_is_given_the_time_that_its_drain_takes():
    (container,) = RUNTIME["spec"]["containers"]
    settings = parse(container["args"])
    grace = SERVICE["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > settings.drain_delay_seconds + settings.drain_grace_seconds
    assert settings.drain_delay_seconds > container["readinessProbe"]["periodSeconds"]
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings.metrics_port)


def test_its_container_is_one_of_kubernetes(tmp_path):
    """KServe's own schemas are not at hand, those of pods are."""
    checker = shutil.which("kubernetes-validate") or pytest.skip("kubernetes-validate is not installed")
    spec = {key: RUNTIME["spec"][key] for key in ("containers", "volumes")}
    (tmp_path / "pod.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taxon"}, "spec": spec})
    )
    done = subprocess.run([checker, "--strict", tmp_path / "pod.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
