"""Several contributions into one network, each weighted by its samples: the server's step of FedAvg (McMahan et al.,
"Communication-efficient learning of deep networks from decentralized data", AISTATS 2017).

Statistics of batch normalisation are not averaged but pooled: the variance of all samples is the mean of the
participants' variances and the variance of their means. That is exact if all had the same weights, and close for
updates of one round; who trains with `--freeze-bn` sends the base's own, and tells nothing of the samples.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from taxon.training.participants.contributions import Contribution
from taxon.training.runs.checkpoint import Checkpoint


def averaged(base: Checkpoint, contributions: Sequence[Contribution]) -> Checkpoint:
    """The base with the averaged state. Counters, which are integers, are the largest of any.

    Args:
        base: What all started from.
        contributions: One or more.
    """
    total = sum(one.count for one in contributions)

    def mean(values: Sequence[Tensor]) -> Tensor:
        parts = [value.double() * (one.count / total) for value, one in zip(values, contributions, strict=True)]
        return torch.stack(parts).sum(dim=0)

    state = {}
    for key, tensor in base.state.items():
        values = [one.checkpoint.state[key] for one in contributions]
        means_key = key.removesuffix("running_var") + "running_mean"
        if not tensor.is_floating_point():
            state[key] = torch.stack(values).amax(dim=0)
        elif key.endswith("running_var") and means_key in base.state:
            means = [one.checkpoint.state[means_key].double() for one in contributions]
            center = mean(means)
            spread = [(found - center) ** 2 for found in means]
            state[key] = (mean(values) + mean(spread)).to(tensor.dtype)
        else:
            state[key] = mean(values).to(tensor.dtype)
    return replace(base, state=state, metrics={}, epoch=0, progress={}, privacy={}, sample_count=total)
