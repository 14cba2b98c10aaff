"""Gives the anomaly branch a part instead of having it made, and guides the image towards it.

A small base composes no line: of a crack, what it draws from noise are smudges, in both branches. Nor does it see
that an open must cut a conductor, or that a break begins at the rim. But its image follows a part that it sees through
SAIM, as it learned. So at every step the anomaly branch has the part of a real defect, changed at random; the image is
made from noise, in the same place. Classifier-free guidance (Ho and Salimans 2022) strengthens what little a small base
takes over: its unconditional pass has the empty prompt, and a grey part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data.copy_paste import CopyPaste, clear_part
from model.data.crops import canvas_side, find_defects, resize_mask
from model.data.surroundings import structure_around
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.tiling import Tiling
from model.quality.stroke import stroke_width
from model.types import GREY, ImageArray, MaskArray, Pair
from service.core.options.dualanodiff import TrainingConfig

LINE = 0.1
"""Greatest mean width of what counts as a line, as a share of a window's side. Cracks have up to 0.07; breaks in
cookies have 0.22 and more."""

UNEVEN = 9.0
"""Structure of a type's surroundings, see `structure_around`, from which its defects must fit what is there: breaks in
cookies, half of whose rim is tray, have 12 and more, circuits mostly 40. Cracks in asphalt have less than 1; half of
the breaks of tiles have up to 3, and a tenth of all defects of tiles more than this."""

LONG = 10.0
"""Least length of a line that fits into a window, in widths. Cracks have 11 and more, blowholes up to 4."""

Placed = tuple[CopyPaste | None, ImageArray]
"""A changed defect, or None where the model makes it; and the window of the normal that it lies on."""


@dataclass(frozen=True, slots=True)
class GivenParts:
    """What the anomaly branch is given for some pairs of a batch.

    Attributes:
        copies: of each pair, the changed defect that is given; None where the model makes it.
        rows: which pairs are given one, `(B,)` bool.
        parts: latents of what the branch is given, `(B, C, h, w)`; of grey where the model makes the part.
        regions: `(B, 1, h, w)`, 1 where the image may differ from the normal, otherwise 0.
    """

    copies: tuple[CopyPaste | None, ...]
    rows: Tensor
    parts: Tensor
    regions: Tensor

    def keep(self, blended: Tensor, clean: Tensor, normal: Tensor) -> Tensor:
        """Replace the latents `(2, B, C, h, w)` of pairs that are given a part: it stays, the image fills its place.

        Args:
            blended: of all pairs, as they are otherwise.
            clean: what the model predicts.
            normal: `(B, C, h, w)`.
        """
        image = normal + self.regions * (clean[0] - normal)
        return torch.where(self.rows[:, None, None, None], torch.stack([image, self.parts]), blended)


@dataclass(frozen=True, slots=True)
class Pull:
    """How strongly the images of windows are guided, and towards what.

    Attributes:
        scales: of guidance, `(N, 1, 1, 1)`.
        hiding: what turns noised parts into noised grey, `(N, C, s, s)`.
    """

    scales: Tensor
    hiding: Tensor

    def split(self, size: int) -> list[Pull]:
        """Split into chunks of windows."""
        return [Pull(*both) for both in zip(self.scales.split(size), self.hiding.split(size), strict=True)]


def is_line(mask: MaskArray, config: TrainingConfig) -> bool:
    """Return whether a defect is a thin line: too long for one window, or in one piece `LONG` times as long as wide.

    Args:
        mask: `(s, s)` bool, not empty, a crop at the photograph's own scale.
    """
    side = canvas_side(mask, mask.shape[0], config.view, config.resolution)
    shown = resize_mask(mask, side)
    if side > config.resolution:
        return stroke_width(shown) <= LINE * config.resolution
    labels, defects = find_defects(shown)
    largest = labels == defects[0]
    # At twice the size, widths of one pixel and of two differ.
    width = stroke_width(largest.repeat(2, 0).repeat(2, 1)) / 2
    return width <= LINE * config.resolution and int(largest.sum()) >= LONG * width**2


def must_fit(references: Sequence[Pair]) -> bool:
    """Return whether the defects of a type lie where the surroundings are uneven, and must fit these."""
    return bool(np.median([structure_around(pair) for pair in references]) >= UNEVEN)


def give_parts(
    placed: Sequence[Placed],
    encoded: Callable[[Sequence[ImageArray]], Tensor],
    cells: Callable[[Sequence[MaskArray]], Tensor],
    grey: Tensor,
) -> GivenParts:
    """Encode the parts of defects that were laid on normals; exact ones are made clear to see, others stay as they are.

    Args:
        placed: one for each pair, at least one with a defect.
        encoded: makes latents `(B, C, h, w)` of images.
        cells: returns the latent cells that masks touch, `(B, 1, h, w)` in [0, 1].
        grey: latent of mid-grey, `(1, C, 1, 1)`.
    """
    shown = [
        np.full_like(window, GREY) if copy is None else clear_part(copy, window) if copy.exact else copy.part
        for copy, window in placed
    ]
    places = [np.zeros(window.shape[:2], np.bool_) if copy is None else copy.mask for copy, window in placed]
    parts = encoded(shown)
    rows = torch.tensor([copy is not None for copy, _ in placed], device=parts.device)
    parts = torch.where(rows[:, None, None, None], parts, grey)
    return GivenParts(tuple(copy for copy, _ in placed), rows, parts, cells(places))


def pull_towards(
    given: GivenParts,
    tiling: Tiling | None,
    grey: Tensor,
    schedule: NoiseSchedule,
    timestep: Tensor,
    scales: tuple[float, float],
) -> Pull:
    """Return how the images of a step's windows are guided.

    Args:
        grey: latent of mid-grey, `(1, C, 1, 1)`.
        timestep: of the step.
        scales: of guidance, for pairs that are given a part, and for the others.
    """
    count = len(given.copies)
    difference = (grey - given.parts).expand_as(given.parts)
    hiding = schedule.add_noise(difference, torch.zeros_like(difference), timestep.expand(count))
    wanted = torch.where(given.rows, *scales)[:, None, None, None]
    if tiling is None:
        return Pull(wanted, hiding)
    return Pull(wanted[[canvas for canvas, _, _ in tiling.places]], tiling.cut(hiding))
