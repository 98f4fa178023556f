"""Contributions into the next base: read, judged, averaged, and measured where there are held-out samples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from taxon.training.errors import TrainingError
from taxon.training.exporting.candidate import Candidate
from taxon.training.loop.significance import changed, loss_p_value
from taxon.training.network import model
from taxon.training.participants.averaging import averaged
from taxon.training.participants.contributions import Contribution, ContributionError, read
from taxon.training.participants.gain import CHANCE, HeldOut, harmful, right
from taxon.training.participants.outliers import Rules, Verdict, judge
from taxon.training.runs.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Fused:
    """What came of the contributions."""

    checkpoint: Checkpoint
    unread: tuple[tuple[str, str], ...]
    """(word, reason) of contributions that are not fine-tunings of the base."""
    verdicts: tuple[Verdict, ...]
    """On the others, in their order."""
    accuracy_before: float | None
    """Of the base, on the held-out samples if there are any."""
    accuracy: float | None
    """Of the average."""

    @property
    def kept(self) -> list[Contribution]:
        """Those that were averaged."""
        return [verdict.contribution for verdict in self.verdicts if not verdict.reason]

    @property
    def refused(self) -> list[tuple[str, str]]:
        """(file, reason) of all that were not."""
        judged = [(verdict.contribution.name, verdict.reason) for verdict in self.verdicts if verdict.reason]
        return [*self.unread, *judged]


def fuse(base: Checkpoint, words: Sequence[str], rules: Rules = Rules(), samples: HeldOut | None = None) -> Fused:
    """Averages what may be averaged.

    Args:
        base: What all participants started from.
        words: See `contributions.read`.
        rules: For outliers.
        samples: Held out from all; None: contributions are judged by their updates alone.

    Raises:
        TrainingError: Nothing is left to average, or the average is worse than the base beyond chance.
    """
    unread, contributions = [], []
    for word in words:
        try:
            contributions.append(read(word, base))
        except ContributionError as error:
            unread.append((word, str(error)))
    verdicts = judge(contributions, rules)

    def kept() -> list[Verdict]:
        return [verdict for verdict in verdicts if not verdict.reason]

    while samples and len(kept()) > 1:
        left = kept()
        found = harmful(base, [verdict.contribution for verdict in left], samples)
        if found is None:
            break
        place, reason = found
        verdicts[verdicts.index(left[place])] = replace(left[place], reason=reason)
    if not kept():
        reasons = [*unread, *((verdict.contribution.name, verdict.reason) for verdict in verdicts)]
        raise TrainingError("no contribution is left: " + "; ".join(f"{name}: {reason}" for name, reason in reasons))
    checkpoint = averaged(base, [verdict.contribution for verdict in kept()])
    checkpoint = replace(checkpoint, run_id=f"fedavg-{_digest(checkpoint)[:16]}")
    before = after = None
    if samples:
        was, now = right(base, samples), right(checkpoint, samples)
        before, after = float(was.mean()), float(now.mean())
        if loss_p_value(*changed(was, now)) < CHANCE:
            raise TrainingError(
                f"the average answers {after:.2%} of {len(was)} held-out samples rightly, the base {before:.2%}: "
                "nothing was written"
            )
        checkpoint = replace(checkpoint, metrics={"accuracy": after})
    return Fused(checkpoint, tuple(unread), tuple(verdicts), before, after)


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(checkpoint.state.items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()


def candidate(fused: Fused, base: Checkpoint, samples: HeldOut) -> Candidate:
    """What becomes a bundle, proven on the held-out samples.

    Args:
        fused: What came of the contributions.
        base: What all started from.
        samples: Held out from all.
    """
    checkpoint = fused.checkpoint
    network = checkpoint.build_model()
    return Candidate(
        network=network,
        head=model.head_path(network),
        labels=checkpoint.labels,
        pixels=checkpoint.pixels,
        mean=checkpoint.mean,
        std=checkpoint.std,
        files=samples.files,
        answers=samples.answers,
        run_id=checkpoint.run_id,
        data_digest=samples.digest,
        task=checkpoint.task,
        expected_accuracy=fused.accuracy if checkpoint.task == "single_label" else None,
        recipe={"fuse": "fedavg", "samples": {one.checkpoint.run_id: one.count for one in fused.kept}},
        features=checkpoint.features,
        parents=(base.run_id, *(one.checkpoint.run_id for one in fused.kept)),
    )
