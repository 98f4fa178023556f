"""What the images hold, and what they do not."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.container.docker import LOCKED, docker, inspected, python

pytestmark = pytest.mark.container

MB = 10**6
MOST_BYTES = {"service-cpu": 350 * MB, "service-gpu": 3500 * MB}
PINNED = dict(
    line.split("==")
    for line in (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
IMPORT_ALL = """
import importlib, pkgutil, taxon
for module in pkgutil.walk_packages(taxon.__path__, "taxon."):
    importlib.import_module(module.name)
    print(module.name)
"""
ABSENT = """
import importlib.util, pathlib, shutil
print([name for name in ("taxon.training", "torch", "onnx", "pip", "setuptools") if importlib.util.find_spec(name)])
print([name for name in ("/bin/sh", "/bin/bash", "/usr/bin/apt-get", "/usr/bin/perl") if pathlib.Path(name).exists()])
"""


@pytest.fixture(params=MOST_BYTES)
def service(image, request):
    return image(request.param)


def test_a_service_is_small(service):
    size = inspected(service)["Size"]
    sys.stdout.write(f"{service}: {size / MB:.0f} MB\n")
    assert size <= MOST_BYTES[service.partition(":")[2]]


def test_a_service_holds_no_training_code_no_shell_and_nothing_that_installs(service):
    assert python(service, ABSENT).splitlines() == ["[]", "[]"]


def test_a_service_lacks_no_library_that_it_may_import(service):
    imported = python(service, IMPORT_ALL).split()
    assert "taxon.service.workers.worker_main" in imported
    assert not any(name.startswith("taxon.training") for name in imported)


@pytest.mark.parametrize("target", [*MOST_BYTES, "training"])
def test_an_image_says_what_it_is_and_runs_as_nobody_in_particular(image, target):
    config = inspected(image(target))["Config"]
    assert config["User"] == "10001:10001"
    labels = {
        f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "version", "revision")
    }
    assert labels <= set(config["Labels"])
    assert config["Entrypoint"][0] == "taxon"
    assert target == "training" or config["Healthcheck"]["Test"] == ["CMD", "taxon", "health"]


@pytest.mark.parametrize("target", [*MOST_BYTES, "training"])
def test_the_bill_of_materials_is_what_is_installed_and_all_of_it_is_pinned(image, target):
    script = (
        "import importlib.metadata, json, pathlib\n"
        "found = {d.name.lower().replace('_', '-'): d.version for d in importlib.metadata.distributions()}\n"
        "print(json.dumps([found, json.loads(pathlib.Path('/opt/taxon/sbom.cdx.json').read_text())]))"
    )
    installed, bill = json.loads(python(image(target), script).splitlines()[-1])
    components = [*bill["components"], *([bill["metadata"]["component"]] if "component" in bill["metadata"] else [])]
    assert bill["bomFormat"] == "CycloneDX"
    assert {re.sub("[-_.]+", "-", one["name"]).lower(): one["version"] for one in components} == installed
    del installed["taxon"]
    assert {name: PINNED.get(name) for name in installed} == installed


def test_a_start_without_the_gpu_that_it_is_for_is_refused_with_the_reason(image):
    done = docker("run", "--rm", "--network", "none", *LOCKED, image("service-gpu"), "--insecure", check=False)
    assert done.returncode == 1
    assert "--device cuda: " in done.stdout
    assert "libcuda.so.1" in done.stdout
    asked = docker(
        "run",
        "--rm",
        "--network",
        "none",
        *LOCKED,
        "--entrypoint",
        "taxon",
        image("service-gpu"),
        "device",
        check=False,
    )
    assert asked.returncode == 1
    assert re.search("^cuda: ", asked.stdout, flags=re.MULTILINE)


def test_training_holds_what_trains(image):
    script = "import onnxruntime, torch, torchvision, taxon.training.finetune; print(torch.version.cuda)"
    assert python(image("training"), script).splitlines()[-1].startswith("13")
