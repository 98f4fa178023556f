import sys

import pytest
import torch
from safetensors.torch import save_file

from taxon.training.errors import TrainingError
from taxon.training.network import model, stages


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *[
            (name, 32)
            for name in (
                "small_cnn",
                "cnn2",
                "cnn3",
                "resnet9_narrow",
                "airbench_mirrored",
                "resnet18",
                "mobilenet_v3_small",
            )
        ],
        ("squeezenet1_1", 64),
        ("shufflenet_v2_x0_5", 64),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_by_name_have_a_head_for_the_classes(name, side, channels):
    network = model.build(name, 5, channels=channels).eval()
    assert network(torch.zeros(2, channels, side, side)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        "inception_v3",
        "maxvit_t",
        "mnasnet0_5",
        "regnet_y_400mf",
        "resnext50_32x4d",
        "swin_t",
        "swin_v2_t",
        "vgg11",
        "vit_b_16",
    ],
)
def test_every_family_builds_splits_into_stages_and_names_its_head(name):
    loaded = model.load(name, 5)
    side = 299 if name == "inception_v3" else 224
    with torch.inference_mode():
        assert loaded.network.eval()(torch.zeros(2, 3, side, side)).shape == (2, 5)
    parts = stages.stages(loaded.network, loaded.head)
    assert list(parts)[-1] == loaded.head
    assert len(parts) > 3
    owned = {id(p) for modules in parts.values() for module in modules for p in module.parameters()}
    assert {name for name, p in loaded.network.named_parameters() if id(p) not in owned} <= {"class_token"} | {
        "encoder.pos_embedding"
    }


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(TrainingError, match="did you mean 'resnet50'"):
        model.build("resnet5O", 2)


def test_preprocessing_is_that_of_the_weights():
    spec = model.preprocessing("efficientnet_b0", "IMAGENET1K_V1")
    assert (spec.pixels.resize, spec.pixels.crop, spec.pixels.interpolation) == (256, (224, 224), "bicubic")
    assert model.preprocessing("resnet50", "IMAGENET1K_V2").pixels.resize == 232
    assert model.preprocessing("resnet50", "IMAGENET1K_V1").mean == (0.485, 0.456, 0.406)


def test_another_size_keeps_the_proportion_of_resize_and_crop():
    assert model.preprocessing("resnet18", image_size=112).pixels.resize == 128


def test_own_networks_need_a_size():
    with pytest.raises(TrainingError, match="--image-size"):
        model.preprocessing("small_cnn")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(tmp_path, suffix):
    source = model.build("resnet18", 2)
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    loaded = model.load("resnet18", 2, weights=str(path))
    assert loaded.dropped_head == ()
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.network.parameters(), strict=True))


def test_a_head_of_another_class_count_is_left_out_and_named(tmp_path):
    source = model.build("resnet18", 1000)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    loaded = model.load("resnet18", 3, weights=str(tmp_path / "w.pth"))
    assert loaded.dropped_head == ("fc.weight", "fc.bias")
    assert torch.equal(source.layer4[1].conv2.weight, loaded.network.layer4[1].conv2.weight)


@pytest.mark.parametrize("name", ["mnasnet0_5", "resnet18"])
def test_a_new_head_on_given_weights_guesses_no_more_boldly_than_torchs_own_layers_would(name, tmp_path):
    torch.save(model.build(name, 3).state_dict(), tmp_path / "weights.pth")
    loaded = model.load(name, 10, weights=str(tmp_path / "weights.pth"))
    head = loaded.network.get_submodule(loaded.head)
    assert head.weight.abs().max() <= head.in_features**-0.5  # mnasnet0_5's own is 18 times as wide
    assert head.weight.std() > 0  # a head of zeros would hide what follows it from `features.cacheable`
    kept = model.load(name, 3, weights=str(tmp_path / "weights.pth"))
    own = torch.load(tmp_path / "weights.pth")[f"{kept.head}.weight"]
    assert torch.equal(kept.network.get_submodule(kept.head).weight, own)


def test_grey_weights_are_the_sum_of_the_colours(tmp_path):
    """A grey picture gives the same answer as the same picture in three equal channels."""
    source = model.build("resnet18", 2).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    grey = model.build("resnet18", 2, channels=1, weights=str(tmp_path / "w.pth")).eval()
    picture = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(grey(picture), source(picture.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "wanted", "message"),
    [
        ("resnet34", "resnet18", "not of the architecture resnet18: unexpected layer1.2.conv1.weight.* more"),
        ("small_cnn", "resnet18", "missing conv1.weight"),
        ("resnet18", "wide_resnet50_2", "mismatched"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_key(tmp_path, stored, wanted, message):
    torch.save(model.build(stored, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=message):
        model.build(wanted, 2, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04cos\nsystem\n(S'true'\ntR."])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    """The last would run a command if it were unpickled."""
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        model.build("resnet18", 2, weights=str(tmp_path / "w.pth"))


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match="does not exist"):
        model.build("resnet18", 2, weights=str(tmp_path / "none.pth"))


def test_unknown_weights_list_the_known_ones():
    with pytest.raises(TrainingError, match=r"IMAGENET1K_V1.*IMAGENET1K_V2"):
        model.build("resnet50", 2, weights="IMAGENET21K")


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(TrainingError, match=r"fetch https://.*resnet18.*--weights FILE.*--weights none"):
        model.build("resnet18", 2, weights="DEFAULT")


def test_an_mlp_head_takes_the_place_of_everything_behind_the_convolutions():
    loaded = model.load("vgg11", 3, head="mlp:16")
    layers = list(loaded.network.classifier)
    assert loaded.head == "classifier"
    assert (layers[0].in_features, layers[0].out_features, layers[-1].out_features) == (512 * 49, 16, 3)


@pytest.mark.parametrize("head", ["mlp", "mlp:0", "mlp:x", "transformer"])
def test_heads_that_do_not_exist_are_refused(head):
    with pytest.raises(TrainingError, match="mlp:<hidden units>"):
        model.load("resnet18", 3, head=head)


def test_a_head_that_cannot_be_put_in_is_refused():
    with pytest.raises(TrainingError, match="ends in a convolution"):
        model.load("squeezenet1_1", 3, head="mlp:16")


def test_a_size_that_the_network_does_not_take_is_refused_before_training():
    with pytest.raises(TrainingError, match="--image-size"):
        model.check_takes(model.build("squeezenet1_1", 2), torch.zeros(2, 3, 8, 8))


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TrainingError, match=r"pip install -e '\.\[timm\]'"):
        model.build("timm/resnet10t", 3)


def test_timm_models_by_name(tmp_path):
    pytest.importorskip("timm")
    source = model.build("timm/resnet10t", 7)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    loaded = model.load("timm/resnet10t", 3, weights=str(tmp_path / "w.pth"))
    assert loaded.dropped_head == ("fc.weight", "fc.bias")
    assert loaded.network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    spec = model.preprocessing("timm/resnet10t").pixels
    assert (spec.resize, spec.crop, spec.interpolation) == (201, (176, 176), "bicubic")
    with pytest.raises(TrainingError, match="timm has no model"):
        model.build("timm/resnet9000", 3)
