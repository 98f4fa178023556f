"""Names of models and of published weights → where the weights are, and whether they can be had."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torchvision
from torch import Tensor

from taxon import extras
from taxon.mistaken import first_line
from taxon.training.errors import TrainingError
from taxon.training.network.networks import NETWORKS
from taxon.training.network.weights import is_file, read_state
from taxon.training.suggest import nearest

TIMM = "timm/"
"""Before the names of timm's models; needs the package timm."""
TIMM_HUB = "https://huggingface.co/timm/"
ANSWERS_WITHIN_S = 4.0
"""A network without a way out can keep a download waiting for minutes."""


def names() -> list[str]:
    """Every model that `build` knows."""
    return [*NETWORKS, *torchvision.models.list_models(module=torchvision.models)]


def check_reachable(address: str, weights: str, name: str) -> None:
    """Fails within seconds where nothing can be downloaded.

    Args:
        address: Where the weights are.
        weights: Their name.
        name: The model's.

    Raises:
        TrainingError: Nobody answers; the message says what to do instead.
    """
    failures: list[OSError | None] = []

    def ask() -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=ANSWERS_WITHIN_S).close()  # noqa: S310 - a library's own
        except HTTPError:
            failures.append(None)  # somebody answered
        except OSError as error:
            failures.append(error)
        else:
            failures.append(None)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    asking.start()
    asking.join(ANSWERS_WITHIN_S)
    failure = failures[0] if failures else TimeoutError(f"no answer within {ANSWERS_WITHIN_S:g} s")
    if failure is not None:
        raise not_downloaded(weights, name, address, failure) from failure


def not_downloaded(weights: str, name: str, address: str, error: BaseException) -> TrainingError:
    """Says what to do instead; arguments as for `check_reachable`."""
    return TrainingError(
        f"the weights {weights} of {name} could not be downloaded ({first_line(error)}): fetch {address} on a machine "
        "with a network and pass the file with --weights FILE, or train from scratch with --weights none"
    )


def fetched(fetch: Callable[[], dict[str, Tensor]], weights: str, name: str, address: str) -> dict[str, Tensor]:
    """Published weights, from the cache on this machine or the network.

    Args:
        fetch: Gets them.
        weights: Their name.
        name: The model's.
        address: Where a person finds them.

    Raises:
        TrainingError: They could not be had; the message says what to do instead.
    """
    try:
        return dict(fetch())
    except Exception as error:  # each of the download libraries has its own
        raise not_downloaded(weights, name, address, error) from error


def timm_package(name: str) -> Any:
    """The package timm, which has a model of this name.

    Raises:
        TrainingError: It is not installed, or has none.
    """
    try:
        import timm
    except ImportError as error:
        raise TrainingError(f"{name} needs the package timm: {extras.install('timm')}") from error
    if not timm.is_model(name.removeprefix(TIMM)):
        raise TrainingError(f"timm has no model {name!r}{nearest(name.removeprefix(TIMM), timm.list_models())}")
    return timm


def weights_enum(name: str, weights: str | None) -> Any:
    """Torchvision's entry for weights of a model; its best without a name.

    Raises:
        TrainingError: No such model or weights.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise TrainingError(f"there is no model {name!r}{nearest(name, names())}")
    published = torchvision.models.get_model_weights(name)
    if weights is None or weights == "DEFAULT":
        return published.DEFAULT
    if weights not in published.__members__:
        raise TrainingError(
            f"{name} has no weights {weights!r}: choose one of {[*published.__members__]}, a file, or none"
        )
    return published[weights]


def check_weights(name: str, weights: str) -> None:
    """Fails within seconds where weights cannot be had.

    Args:
        name: A model name.
        weights: As for `build`.

    Raises:
        TrainingError: The file is not there, there are no such weights, or they are not on this machine and nobody
            answers where they are.
    """
    _check_exist(name, weights)
    if not is_at_hand(name, weights):
        address = f"{TIMM_HUB}{name.removeprefix(TIMM)}" if name.startswith(TIMM) else weights_enum(name, weights).url
        check_reachable(address, weights, name)


def is_at_hand(name: str, weights: str) -> bool:
    """Whether weights are on this machine: a file, or published ones in the cache of the library that fetches them.

    Args:
        name: A model name.
        weights: As for `build`.

    Raises:
        TrainingError: There are no such weights, or timm is not installed.
    """
    if is_file(weights):
        return Path(weights).is_file()
    if name.startswith(TIMM):
        timm_package(name)
        return _is_in_hub(name)
    return Path(torch.hub.get_dir(), "checkpoints", weights_enum(name, weights).url.rpartition("/")[2]).is_file()


def _check_exist(name: str, weights: str) -> None:
    """Refuses a file that is not there, and published weights of our own networks."""
    if is_file(weights):
        if not Path(weights).exists():
            raise TrainingError(f"the weights file {weights} does not exist")
    elif name in NETWORKS:
        raise TrainingError(f"{name} has no published weights: give a file, or none")


def _is_in_hub(name: str) -> bool:
    """Whether the Hugging Face cache holds a file of a model of timm's, by its whole name or with a tag behind it: a
    download that was broken off leaves a folder without any.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = f"models--timm--{name.removeprefix(TIMM)}"
    return any(any(Path(HF_HUB_CACHE).glob(f"{one}/snapshots/*/*")) for one in (folder, f"{folder}.*"))


def state_of(name: str, weights: str) -> dict[str, Tensor]:
    """The state in a file, or published under a name. Whether somebody answers there is for `check_weights` to ask.

    Raises:
        TrainingError: It cannot be had, see `fetched` and `weights.read_state`.
    """
    _check_exist(name, weights)
    if is_file(weights):
        return read_state(Path(weights))
    if name.startswith(TIMM):
        package, own = timm_package(name), name.removeprefix(TIMM)
        address = f"{TIMM_HUB}{own}"
        return fetched(lambda: package.create_model(own, pretrained=True).state_dict(), weights, name, address)
    member = weights_enum(name, weights)
    return fetched(lambda: member.get_state_dict(progress=False), weights, name, member.url)
