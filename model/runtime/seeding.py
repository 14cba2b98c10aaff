"""Random draws that depend on a seed and a number alone: of a step, of a pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator whose draws depend on `(seed, step)` alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step * 7_919 + 12_345) % (2**63))


NOISE, FINER_NOISE = 1, 2
"""Tell a pair's draws of noise from its others, and those of a first pass from those of a second one."""


def pair_seed(seed: int, index: int) -> int:
    """The 63-bit seed of pair, or detector, `index`."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_noise(seed: int, shape: tuple[int, ...], *, use: int = NOISE) -> Tensor:
    """Standard normal noise from all 63 bits of a seed (torch's CPU generator looks at 32 of them).

    Args:
        use: tells draws apart that have one seed.
    """
    return torch.from_numpy(np.random.default_rng([seed, use]).standard_normal(shape, dtype=np.float32))


def steps_generator(seed: int, *, use: int = NOISE) -> torch.Generator:
    """A CPU generator for the noise that schedulers add in their steps; arguments as for `draw_noise`."""
    return torch.Generator().manual_seed(seed if use == NOISE else pair_seed(seed, use))
