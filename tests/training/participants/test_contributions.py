import dataclasses

import pytest
import torch

from taxon.training.network import model
from taxon.training.participants.contributions import ContributionError, read
from tests.training.participants.contributors import make_base, moved, saved


@pytest.fixture(scope="module")
def base():
    return make_base()


def with_tensor(checkpoint, key, change):
    tensor = checkpoint.state[key].clone()
    change(tensor)
    return dataclasses.replace(checkpoint, state={**checkpoint.state, key: tensor})


def with_first(checkpoint, change):
    key = key_of(checkpoint, "weight")
    return dataclasses.replace(checkpoint, state={**checkpoint.state, key: change(checkpoint.state[key])})


def key_of(base, ending):
    return next(key for key in base.state if key.endswith(ending))


def test_a_fine_tuning_of_the_base_is_taken_with_its_count(base, tmp_path):
    word = saved(moved(base, 1, count=321), tmp_path, "a.pt")
    found = read(word, base)
    assert (found.count, found.name) == (321, word)
    expected = sum(
        float(((found.checkpoint.state[k] - base.state[k]) ** 2).sum()) for k in base.state if "running" not in k
    )
    assert float(found.update.norm() ** 2) == pytest.approx(expected, rel=1e-4)
    assert not found.shift.any()
    assert read(f"{word}=7", base).count == 7


WRONG = {
    "another order": lambda c: dataclasses.replace(c, labels=("dog", "cat")),
    r"labels are \['cat', 'cow'\]": lambda c: dataclasses.replace(c, labels=("cat", "cow")),
    "its model is 'resnet18'": lambda c: dataclasses.replace(c, model="resnet18"),
    "its mean is": lambda c: dataclasses.replace(c, mean=(0.4,) * 3),
    "its pixels is": lambda c: dataclasses.replace(c, pixels=c.pixels.model_copy(update={"resize": 20})),
    "no state of a network": lambda c: dataclasses.replace(c, state={**c.state, "x": "y"}),
    "another architecture: more is only": lambda c: dataclasses.replace(c, state={**c.state, "more": torch.zeros(1)}),
    "trained on 0 samples: say how many": lambda c: dataclasses.replace(c, sample_count=0),
    "trained on -5 samples": lambda c: dataclasses.replace(c, sample_count=-5),
    "trained on many samples": lambda c: dataclasses.replace(c, sample_count="many"),
    "no checkpoint of Taxon: TypeError: 'int' object": lambda c: dataclasses.replace(c, labels=5),
    "no checkpoint of Taxon: RuntimeError: Boolean": lambda c: dataclasses.replace(c, mean=(torch.ones(2),) * 3),
    r"run id is no text": lambda c: dataclasses.replace(c, run_id=["run"]),
    r"run id is no text of 1 to 200": lambda c: dataclasses.replace(c, run_id=201 * "x"),
    r"run id is no text of 1 to 200 printable": lambda c: dataclasses.replace(c, run_id="\x1b[2J"),
    "is no plain tensor": lambda c: with_first(c, lambda tensor: tensor.to("meta")),
    "is no plain tensor on": lambda c: with_first(c, lambda tensor: tensor.to_sparse()),
    "is no plain tensor on the CPU": lambda c: with_first(c, torch.nn.Parameter),
    "trained on 1000000000000": lambda c: dataclasses.replace(c, sample_count=10**12),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # by torch, of one that is then refused
@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_fine_tuning_of_the_base_is_refused(base, tmp_path, message):
    word = saved(WRONG[message](moved(base, 1)), tmp_path, "a.pt")
    with pytest.raises(ContributionError, match=message):
        read(word, base)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_none_is_found_and_named(base, tmp_path, value):
    key = key_of(base, "weight")
    broken = with_tensor(moved(base, 1), key, lambda tensor: tensor.view(-1)[3:4].fill_(value))
    with pytest.raises(ContributionError, match=f"{key} holds values that are no finite numbers"):
        read(saved(broken, tmp_path, "a.pt"), base)


def test_a_negative_variance_is_refused(base, tmp_path):
    key = key_of(base, "running_var")
    broken = with_tensor(moved(base, 1), key, lambda tensor: tensor[:1].fill_(-1.0))
    with pytest.raises(ContributionError, match=f"{key} holds negative variances"):
        read(saved(broken, tmp_path, "a.pt"), base)


def test_the_same_names_in_another_shape_or_type_are_refused(base, tmp_path):
    key = key_of(base, "bias")
    for tensor, found in ((torch.zeros(77), r"\(77, 'torch.float32'\)"), (base.state[key].half(), "float16")):
        other = moved(base, 1)
        other = dataclasses.replace(other, state={**other.state, key: tensor})
        with pytest.raises(ContributionError, match=f"{key} is .*{found}"):
            read(saved(other, tmp_path, "a.pt"), base)


def test_a_file_that_holds_other_things_is_refused(base, tmp_path):
    torch.save({"format": torch.ones(2)}, tmp_path / "odd.pt")
    with pytest.raises(ContributionError, match="it is no checkpoint of Taxon"):
        read(str(tmp_path / "odd.pt"), base)


def test_the_base_itself_is_no_contribution(base, tmp_path):
    with pytest.raises(ContributionError, match="it is the base, unchanged"):
        read(saved(base, tmp_path, "a.pt"), base)


def test_files_that_are_no_checkpoints(base, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save(model.build("small_cnn", 2).state_dict(), tmp_path / "bare.pt")
    for name, message in (
        ("text.pt", "cannot be read"),
        ("bare.pt", "not a checkpoint"),
        ("gone.pt", "does not exist"),
    ):
        with pytest.raises(ContributionError, match=message):
            read(str(tmp_path / name), base)
