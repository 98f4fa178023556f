"""What is found in a folder of models, and in which order it should be loaded."""

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from taxon.bundle import version_labels
from taxon.bundle.traffic import Traffic
from taxon.service.models.folder import Found, declared, scan, traffic_print
from taxon.service.runtime.description import GraphConfig
from tests.fakes import toy_bundle
from tests.tensor_models import simple


def found(root, names=None):
    return [(one.name, one.version) for one in scan(root, names)]


def graph(root, name="graph", *versions):
    for version in versions or (1,):
        (root / name / str(version)).mkdir(parents=True)
        (root / name / str(version) / "model.onnx").touch()


def label(root, name, version):
    """Also of a name that no bundle could have."""
    folder = root / name / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stable").write_text(f"{version}\n")


def test_models_by_name_and_of_each_the_latest_version_first(tmp_path):
    for name in ("zebra", "ant", "ant", "ant"):
        toy_bundle(tmp_path, name)
    assert found(tmp_path) == [("ant", 3), ("ant", 2), ("ant", 1), ("zebra", 1)]


def test_versions_are_numbers_and_not_texts(tmp_path):
    graph(tmp_path, "graph", 9, 10, 100)
    assert found(tmp_path) == [("graph", 100), ("graph", 10), ("graph", 9)]


@pytest.mark.parametrize(("stable", "order"), [(1, [1, 3, 2]), (2, [2, 3, 1]), (3, [3, 2, 1]), (7, [3, 2, 1])])
@pytest.mark.parametrize("kind", ["bundle", "graph"])
def test_the_labelled_version_goes_before_all_others(tmp_path, kind, stable, order):
    if kind == "graph":
        graph(tmp_path, "model", 1, 2, 3)
    else:
        for _ in range(3):
            toy_bundle(tmp_path, "model")
    label(tmp_path, "model", stable)
    assert found(tmp_path) == [("model", version) for version in order]


def test_bundles_have_a_manifest_and_graphs_have_none(models):
    simple(models)
    bundle, graph = scan(models)
    assert (bundle.name, bundle.config) == ("colors", None)
    assert (graph.name, graph.config) == ("simple", GraphConfig())


def test_a_model_with_a_manifest_is_a_bundle_in_all_its_versions(models):
    """One that somebody copies by hand has its graph first and its manifest last."""
    whole = models / "colors" / "1"
    shutil.copytree(whole, models / "colors" / "9").joinpath("manifest.json").unlink()
    assert found(models) == [("colors", 1)]


def test_half_written_bundles_are_not_even_tried(models):
    """Ones that lie ready to be renamed, whole or torn."""
    whole = models / "colors" / "1"
    shutil.copytree(whole, models / "colors" / ".staging-whole")
    shutil.copytree(whole, models / "colors" / ".staging-torn").joinpath("manifest.json").write_text("{")
    assert found(models) == [("colors", 1)]


def test_a_bundle_that_is_damaged_is_found_and_refused_later(models):
    (models / "colors" / "1" / "manifest.json").write_text("{")
    assert scan(models) == [Found("colors", 1, None)]


def test_what_is_no_model_is_passed_over(tmp_path):
    graph(tmp_path, "Simple.v2", 10)
    (tmp_path / "Simple.v2" / "9").mkdir()
    for name in ("draft", "0", "01", "-1", "1.0", "1" * 19):
        graph(tmp_path, f"Simple.v2/{name}")
        (tmp_path / "Simple.v2" / name / "model.onnx").touch()
    graph(tmp_path, ".hidden", 1)
    graph(tmp_path, "lost+found", 1)
    graph(tmp_path, "n" * 129, 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "README").touch()
    assert found(tmp_path) == [("Simple.v2", 10)]


def test_only_the_models_that_were_asked_for(models):
    toy_bundle(models, "other")
    assert found(models, ["other"]) == [("other", 1)]
    assert found(models, ["birds"]) == []
    assert found(models, []) == []


# What cannot be read


@pytest.fixture
def unreadable(monkeypatch):
    """Folders that only their owner may list; for root, as whom tests may run, there are none."""
    closed = set()
    iterdir, exists = Path.iterdir, Path.exists

    def refuse(path):
        if any(one in closed for one in (path, *path.parents)):
            raise PermissionError(13, "Permission denied", str(path))

    def listed(path):
        refuse(path)
        return iterdir(path)

    def existing(path, **options):
        refuse(path.parent)
        return exists(path, **options)

    monkeypatch.setattr(Path, "iterdir", listed)
    monkeypatch.setattr(Path, "exists", existing)
    return closed


def test_a_folder_that_cannot_be_read_costs_no_other_model(models, unreadable):
    toy_bundle(models, "closed")
    (models / "lost+found").mkdir()
    unreadable |= {models / "lost+found", models / "closed"}
    with capture_logs() as events:
        assert found(models) == [("colors", 1)]
    (event,) = events
    assert event["folder"] == str(models / "closed")
    assert "Permission denied" in event["reason"]


def test_a_version_that_cannot_be_read_costs_no_other_model(models, unreadable):
    toy_bundle(models, "half")
    unreadable.add(models / "half" / "1")
    with capture_logs():
        assert found(models) == [("colors", 1)]


@pytest.mark.parametrize("exists", [True, False])
def test_a_root_that_cannot_be_read_is_told_and_is_no_error(models, unreadable, exists):
    root = models if exists else models / "nowhere"
    if exists:
        unreadable.add(models)
    with capture_logs() as events:
        assert scan(root) == []
    assert events[0]["event"] == "model folder cannot be read"


# Configurations


def configure(root, text, name="graph"):
    (root / name / "config.pbtxt").write_text(text)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", [3, 2, 1]),
        ("version_policy { latest { num_versions: 2 } }", [3, 2]),
        ("version_policy { latest { } }", [3]),
        ("version_policy { specific { versions: [1, 3] } }", [3, 1]),
        ("version_policy { specific { versions: [7] } }", []),
    ],
)
def test_version_policies_choose_what_is_served(tmp_path, policy, versions):
    graph(tmp_path, "graph", 1, 2, 3)
    configure(tmp_path, policy)
    assert found(tmp_path) == [("graph", version) for version in versions]


def test_the_latest_are_the_newest_whatever_is_labelled(tmp_path):
    graph(tmp_path, "graph", 1, 2, 3)
    configure(tmp_path, "version_policy { latest { num_versions: 2 } }")
    label(tmp_path, "graph", 1)
    assert found(tmp_path) == [("graph", 3), ("graph", 2)]
    label(tmp_path, "graph", 2)
    assert found(tmp_path) == [("graph", 2), ("graph", 3)]


def test_a_configuration_that_cannot_be_honoured_refuses_every_version_and_no_other_model(models):
    graph(models, "graph", 1, 2)
    configure(models, 'backend: "python"')
    bundle, second, first = scan(models)
    assert not bundle.refused
    assert (second.version, first.version) == (2, 1)
    assert "only 'onnxruntime' is served" in second.refused
    assert first.refused == second.refused


def test_a_bundles_configuration_is_for_triton_and_not_read(models):
    configure(models, 'backend: "python"', "colors")
    assert scan(models) == [Found("colors", 1, None)]


# Labels


def test_labels_are_read(models):
    version_labels.write(models, "colors", "stable", 1)
    version_labels.write(models, "colors", "canary", 7)
    assert declared(models, "colors").labels == {"stable": 1, "canary": 7}
    (models / "birds").mkdir()
    assert declared(models, "birds") == Traffic()


def test_a_model_whose_folder_is_away_has_not_lost_its_labels(models):
    assert declared(models, "birds") is None


def test_labels_that_cannot_be_read_are_told_and_are_not_the_same_as_none(models):
    (models / "colors" / "labels").mkdir()
    (models / "colors" / "labels" / "odd").write_text("nonsense")
    with capture_logs() as events:
        assert declared(models, "colors") is None
        assert found(models) == [("colors", 1)]
    assert "must hold a version number" in events[0]["reason"]


def test_a_change_of_labels_shows(models):
    assert traffic_print(models, "colors") == (0,)
    (models / "colors" / "labels").mkdir()
    (models / "colors" / "labels" / "stable").write_text("3")
    seen = [traffic_print(models, "colors")]
    for stable in (1, 2):
        version_labels.write(models, "colors", "stable", stable)
        seen.append(traffic_print(models, "colors"))
    assert len(set(seen)) == 3
    assert declared(models, "colors").labels == {"stable": 2}
