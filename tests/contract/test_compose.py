"""`deploy/compose.yaml` mounts what there is, and starts the service as locked as it runs anywhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxon.service.config import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
PROMETHEUS = DEPLOY / "prometheus/prometheus.yml"


def test_every_file_that_is_mounted_is_there():
    for service in SERVICES.values():
        for mount in service["volumes"]:
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), mount


def test_the_service_is_locked_and_given_time_to_drain():
    service = SERVICES["taxon"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert int(service["stop_grace_period"].removesuffix("s")) > parse(service["command"]).drain_grace_seconds
    assert re.search(f"AS {service['build']['target']}$", (DEPLOY.parent / "Dockerfile").read_text(), re.MULTILINE)


def test_nothing_is_published_beyond_this_machine():
    assert {port.partition(":")[0] for service in SERVICES.values() for port in service["ports"]} == {"127.0.0.1"}


def test_prometheus_scrapes_the_page_that_the_service_opens():
    (scrape,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    settings = parse(SERVICES["taxon"]["command"])
    assert scrape["static_configs"] == [{"targets": [f"taxon:{settings.metrics_port}"]}]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not at hand")
def test_promtool_finds_nothing_wrong():
    subprocess.run(["promtool", "check", "config", PROMETHEUS], check=True, capture_output=True)
