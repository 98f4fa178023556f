"""What of a `config.pbtxt` is honoured, what is warned of, what is refused."""

import pytest
from structlog.testing import capture_logs

from taxon.bundle.manifest import BundleError
from taxon.service.models.config_pbtxt import of_data_type, read_config
from taxon.service.runtime.description import GraphConfig


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "simple"
    made.mkdir()
    return made


def read(folder, text):
    (folder / "config.pbtxt").write_text(text)
    return read_config(folder)


def test_without_a_file_everything_is_as_the_graph_says(folder):
    config = read_config(folder)
    assert config == GraphConfig()
    assert config.max_batch_size is None


def test_everything_that_is_honoured(folder):
    (folder / "names.txt").write_text("a\nb b\n", encoding="utf-8")
    with capture_logs() as events:
        config = read(
            folder,
            """
            name: "simple"  platform: "onnxruntime_onnx"  max_batch_size: 3
            default_model_filename: "other.onnx"
            input [
              { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] format: FORMAT_NHWC },
              { name: "INPUT1" data_type: TYPE_STRING dims: 16 }
            ]
            output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] label_filename: "names.txt" }
            version_policy: { latest { num_versions: 2 } }
            dynamic_batching { }
            """,
        )
    assert events == []
    assert config == GraphConfig(
        max_batch_size=3,
        inputs={"INPUT0": "INT32", "INPUT1": "BYTES"},
        outputs={"OUTPUT0": "FP32"},
        formats={"INPUT0": 1},
        labels={"OUTPUT0": ("a", "b b")},
        latest_count=2,
        versions=None,
        graph_file="other.onnx",
    )


def test_a_file_that_says_nothing_means_no_batching_as_with_triton(folder):
    assert read(folder, "").max_batch_size == 0


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("optimization { cuda { graphs: true } }", ["optimization"]),
        ("instance_group [ { count: 4 } ]", ["instance_group"]),
        (
            "dynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 9 }",
            ["dynamic_batching.max_queue_delay_microseconds", "dynamic_batching.preferred_batch_size"],
        ),
        ("model_warmup [ { name: 'w' batch_size: 1 } ]", ["model_warmup"]),
        ("response_cache { enable: true }", ["response_cache"]),
        ("input { name: 'x' reshape { shape: [1] } }", ["input.reshape"]),
    ],
)
def test_what_is_not_honoured_is_warned_of(folder, text, ignored):
    with capture_logs() as events:
        read(folder, f"max_batch_size: 8 {text}")
    (warned,) = [event for event in events if event["event"] == "configuration is honoured in part"]
    assert warned["ignored"] == ignored


def test_unknown_parts_are_warned_of(folder):
    with capture_logs() as events:
        assert read(folder, 'max_batch_size: 8  a_new_part { x: "y" }').max_batch_size == 8
    assert "a_new_part" in events[0]["reason"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('name: "other"', "is of model 'other'"),
        ('backend: "python"', "only 'onnxruntime' is served"),
        ('platform: "tensorflow_graphdef"', "only 'onnxruntime' is served"),
        ("max_batch_size: -1", "must not be negative"),
        ("max_batch_size {", "is not a model configuration"),
        ('default_model_filename: "../../x.onnx"', "must be a file of the version's folder"),
        ('output { name: "OUTPUT0" label_filename: "../../../etc/passwd" }', "leads out of the model's folder"),
        ('output { name: "OUTPUT0" label_filename: "none.txt" }', "cannot be read"),
    ],
)
def test_configurations_that_cannot_be_honoured_are_refused(folder, text, reason):
    with pytest.raises(BundleError, match=reason):
        read(folder, text)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_files_that_cannot_be_read_are_refused(folder, content):
    if content is None:
        (folder / "config.pbtxt").mkdir()
    else:
        (folder / "config.pbtxt").write_bytes(content)
    with pytest.raises(BundleError, match=r"config\.pbtxt cannot be read"):
        read_config(folder)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [1, 2, 3]),
        ("version_policy { all { } }", [1, 2, 3]),
        ("version_policy { latest { num_versions: 2 } }", [2, 3]),
        ("version_policy { latest { } }", [3]),
        ("version_policy { specific { versions: [1, 3] } }", [1, 3]),
    ],
)
def test_version_policy(folder, policy, served):
    config = read(folder, policy)
    assert [version for version in (1, 2, 3) if config.serves(version, 3 - version)] == served


@pytest.mark.parametrize(
    ("data_type", "name"), [(0, "INVALID"), (1, "BOOL"), (8, "INT32"), (11, "FP32"), (13, "BYTES")]
)
def test_data_types_have_the_protocols_names(data_type, name):
    assert of_data_type(data_type) == name
