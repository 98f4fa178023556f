"""Training that bounds what weights tell of a picture: DP-SGD (Abadi et al., "Deep learning with differential privacy",
CCS 2016) by Opacus, for a head on frozen features.

Each sample joins a batch by a chance of its own, its gradient is clipped, and noise goes on the sum. What is drawn
for both is kept nowhere, and follows from no seed: who can draw the noise again can take it away. So such a
training cannot be resumed, and does not repeat itself.
"""

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taxon import extras
from taxon.training.config import PrivacyOptions, Recipe
from taxon.training.errors import TrainingError
from taxon.training.loop.machine import Machine
from taxon.training.network.model import Preprocessing
from taxon.training.runs.folder import Run

SMALLEST_BATCH = 32
"""By chance a batch can come out empty, of this size less than once in 10^13 times."""
STATE_WORDS = slice(3, 3 + 624)
"""The Mersenne twister's, in a generator's state as torch gives it, in 64-bit words."""


def private_steps(
    recipe: Recipe, folder: Path, machine: Machine, preprocessing: Preprocessing, count: int
) -> "PrivateSteps | None":
    """What a recipe with noise needs; None for all others.

    Args:
        recipe: Resolved.
        folder: Of the run.
        machine: That trains.
        preprocessing: Of its data.
        count: Of training samples.

    Raises:
        TrainingError: See `PrivateSteps`; or a guarantee cannot be had with this machine, data or folder.
    """
    if not recipe.privacy.noise:
        return None
    if Run(folder).last_path.exists():
        raise TrainingError(
            f"{folder} holds a run with --dp-noise, which cannot be resumed: its noise is drawn once and kept nowhere. "
            "Train anew, with another --out"
        )
    if machine.world > 1 or machine.device.type != "cpu":
        raise TrainingError("--dp-noise trains in one process on the CPU: leave out torchrun, and give --device cpu")
    if preprocessing.pixels is None:
        raise TrainingError("--dp-noise is for pictures: numbers are standardised by what the training samples are")
    return PrivateSteps(recipe.privacy, count=count, batch_size=recipe.optim.batch_size, epochs=recipe.optim.epochs)


class PrivateSteps:
    """The parts of a training step that keep the guarantee: batches, gradients per sample, clipping and noise."""

    def __init__(self, options: PrivacyOptions, *, count: int, batch_size: int, epochs: int) -> None:
        """What is spent is known beforehand, and is of all epochs, whichever is chosen.

        Args:
            options: With noise.
            count: Of training samples.
            batch_size: Samples of a batch, on average.
            epochs: Each of `count // batch_size` steps.

        Raises:
            TrainingError: Opacus is missing, or the numbers allow no guarantee.
        """
        try:
            from opacus.accountants import RDPAccountant
        except ImportError as error:
            raise TrainingError(f"--dp-noise needs its package ({error}): {extras.install('privacy')}") from error
        if not SMALLEST_BATCH <= batch_size <= count:
            raise TrainingError(
                f"--dp-noise needs a --batch-size from {SMALLEST_BATCH} to the {count} training samples, not of "
                f"{batch_size}"
            )
        if options.delta * count >= 1.0:
            raise TrainingError(
                f"--dp-delta {options.delta:g} would allow to publish one of {count} training samples as it is: it "
                f"must be well below {1 / count:.1g}"
            )
        self.options, self.count, self.batch_size = options, count, batch_size
        self.steps = count // batch_size
        """In an epoch."""
        accountant = RDPAccountant()
        accountant.history = [(options.noise, self.sample_rate, self.steps * epochs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the bound, which holds, could be closer
            epsilon = float(accountant.get_epsilon(options.delta))
        if not math.isfinite(epsilon):
            raise TrainingError(f"--dp-noise {options.noise:g} is too little for any epsilon")
        self.spent: dict[str, float] = {
            "epsilon": epsilon,
            "delta": options.delta,
            "noise_multiplier": options.noise,
            "clip_norm": options.clip,
            "sample_rate": self.sample_rate,
            "steps": self.steps * epochs,
        }
        """For the manifest, see `taxon.bundle.manifest.Privacy`."""
        self._generator = unguessable()

    @property
    def promise(self) -> str:
        """What is promised, and what is not."""
        return (
            f"differential privacy of each training picture: epsilon {self.spent['epsilon']:.2f} at delta "
            f"{self.spent['delta']:g} after {self.spent['steps']} steps; not of validation pictures, of which an "
            "export publishes some, nor of what the weights were trained on before"
        )

    @property
    def sample_rate(self) -> float:
        """The chance of a sample to join a batch."""
        return self.batch_size / self.count

    def batches(self) -> list[NDArray[np.int64]]:
        """Sample numbers of each batch of an epoch."""
        from opacus.utils.uniform_sampler import UniformWithReplacementSampler

        drawn = UniformWithReplacementSampler(
            num_samples=self.count, sample_rate=self.sample_rate, steps=self.steps, generator=self._generator
        )
        return [np.asarray(numbers, dtype=np.int64) for numbers in drawn]

    def per_sample(self, head: nn.Module) -> nn.Module:
        """The head, whose backward pass keeps the gradient of every sample.

        Raises:
            TrainingError: It has a layer that mixes samples, or one that Opacus does not know.
        """
        from opacus import GradSampleModule

        try:
            wrapped: nn.Module = GradSampleModule(head)
        except NotImplementedError as error:
            raise TrainingError(f"--dp-noise cannot be had with this head: {error}") from error
        # Not needed, but torch warns where a hook gets gradients of a module whose inputs ask for none.
        wrapped.register_forward_pre_hook(lambda _module, inputs: (inputs[0].requires_grad_(),))
        return wrapped

    def noisy(self, optimizer: torch.optim.Optimizer) -> Any:
        """An optimiser that clips the gradient of each sample, adds noise to their sum, and steps with that."""
        from opacus.optimizers import DPOptimizer

        return DPOptimizer(
            optimizer,
            noise_multiplier=self.options.noise,
            max_grad_norm=self.options.clip,
            expected_batch_size=self.batch_size,
            generator=self._generator,
            secure_mode=True,  # the last bits of a single draw tell what it was added to (arXiv:2107.10138)
        )


def unguessable() -> torch.Generator:
    """A generator that begins in a state from the operating system. A seed would not do: of any, torch's generator for
    CPUs uses 32 bits, which somebody can try one after the other.
    """
    generator = torch.Generator()
    state = generator.get_state()
    words = state.view(torch.int64)
    drawn = np.frombuffer(os.urandom(624 * 4), dtype=np.uint32).astype(np.int64)
    words[STATE_WORDS] = torch.from_numpy(drawn)
    generator.set_state(state)
    return generator
