"""The chart: by default it is `deploy/kubernetes`, and what it sets, the service takes.

Rendered by Helm's own library, which the package helm-python-sdk brings.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxon import __version__
from taxon.service.config import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm/taxon"
OWN_LABELS = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
)
"""That Helm's charts have by custom."""
TLS = {"tlsSecret": "pets-tls", "tlsServerName": "pets.example"}
ALL = TLS | {
    "autoscaling": {"enabled": False},
    "replicas": 3,
    "args": ["--require-signature=/keys/release.pub"],
    "image": {"name": "registry.example/taxon:1", "pullSecrets": [{"name": "registry"}]},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "volumes": [{"name": "keys", "configMap": {"name": "keys"}}],
    "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True}],
    "network": {"egress": [{"ports": [{"port": 4318}]}]},
}


def test_the_chart_has_the_version_of_what_it_deploys():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


@pytest.fixture
def helm():
    return pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")


def rendered(helm, values, release="taxon"):
    """Resources by kind."""
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values(values))
        texts = chart.render(values, name=release, namespace="default").values()
    resources = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return {one["kind"]: one for one in resources}


def plain(tree):
    """Without the labels that only the chart has, and without what it only says in full."""
    if isinstance(tree, dict):
        kept = {key: plain(value) for key, value in tree.items() if key not in (*OWN_LABELS, "imagePullPolicy")}
        if "metadata" in kept and "kind" in kept:
            kept["metadata"].pop("labels", None)
        return kept
    return [plain(one) for one in tree] if isinstance(tree, list) else tree


def settings(deployment):
    return parse(deployment["spec"]["template"]["spec"]["containers"][0]["args"])


def test_by_default_it_is_what_kustomize_has(helm):
    names = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    by_hand = {
        one["kind"]: one for name in names for one in [yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())]
    }
    by_hand["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] = "taxon:service-cpu"
    del by_hand["Deployment"]["spec"]["replicas"]  # which the autoscaler says
    assert plain(rendered(helm, {})) == plain(by_hand)


@pytest.mark.parametrize("values", [{}, ALL], ids=["default", "all"])
def test_lint_finds_nothing_and_the_schemas_of_kubernetes_hold(helm, values, tmp_path):
    assert [one for one in helm.lint(str(CHART), values, strict=True)["messages"] if one["severity"] > 1] == []
    checker = shutil.which("kubernetes-validate") or pytest.skip("kubernetes-validate is not installed")
    for kind, resource in rendered(helm, values).items():
        (tmp_path / kind).write_text(json.dumps(resource))
    done = subprocess.run([checker, "--strict", *tmp_path.iterdir()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_releases_beside_each_other_select_their_own_pods(helm):
    one, other = (rendered(helm, {}, release) for release in ("cats", "dogs"))
    for kind, path in {"Service": ("selector",), "Deployment": ("selector", "matchLabels")}.items():
        selectors = []
        for resources in (one, other):
            selector = resources[kind]["spec"]
            for key in path:
                selector = selector[key]
            selectors.append(selector)
        assert selectors[0] != selectors[1]
        assert selectors[0].items() <= one["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_with_a_secret_nothing_is_said_in_the_clear(helm):
    deployment = rendered(helm, ALL)["Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    taken = settings(deployment)
    assert (taken.insecure, taken.tls_cert, taken.tls_key) == (False, Path("/tls/tls.crt"), Path("/tls/tls.key"))
    assert taken.require_signature == Path("/keys/release.pub")
    assert "grpc" not in pod["containers"][0]["readinessProbe"]
    assert pod["terminationGracePeriodSeconds"] > taken.drain_delay_seconds + taken.drain_grace_seconds


@pytest.mark.parametrize(
    "values", [{"replicas": -1}, {"args": ["insecure"]}, {"imgae": {}}, {"tlsSecret": "pets-tls"}], ids=str
)
def test_values_that_mean_nothing_are_refused(helm, values):
    with pytest.raises(helm.HelmError):
        rendered(helm, values)
