"""Lays generated defects on photographs, at the photographs' own scale and with their own grain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.data.detail import Levels, RealDetail, chroma, draw_detail
from model.types import ImageArray, MaskArray

REPLACED = (12.0, 40.0)
"""Change, grey levels, up to which the photograph keeps its grain, and from which none of it is left, where a model
draws the surroundings anew as well, and everything differs a little."""

FILLED = (4.0, 16.0)
"""The same where a model fills a given mask on a surface that it sees: what differs there is the defect."""

CHROMA_BLUR = 1.0
"""Deviation, pixels, of the blur by which colours are about as coarse as in JPEG files, at half the resolution."""

FADE = 2.0
"""Distance from a filled mask at which the photograph is reached, model pixels: what is drawn fades out over less."""

SMOOTHED = 1.0
"""Deviation of the blur over which a change is measured, model pixels."""

LEAST_SHARE = 0.02
"""Share of replaced surface from which the detail of real defects is drawn."""

DRAW = 1
"""Tells the random draws of detail from a candidate's others."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model made of a part of a photograph, at the model's scale.

    Attributes:
        image, reconstructed: `(h, w, 3)`, grey levels: with the defect, and the normal after the same autoencoder.
        alpha: `(h, w)` in [0, 1]: 1 on the defect, 0 where the photograph must stay as it is.
        filled: whether a given mask was filled on a surface that the model sees, so that what differs is the defect.
    """

    image: Levels
    reconstructed: Levels
    alpha: NDArray[np.float32]
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What to add to a photograph, grey levels.

    Attributes:
        coarse: `(H, W, 3)`, what the model drew.
        fine: `(H, W, 3)`, or `(H, W, 1)` without colours, detail that the model cannot draw, less that of the surface
            which was replaced.
    """

    coarse: Levels
    fine: NDArray[np.float32]

    @property
    def whole(self) -> Levels:
        """Return all of it."""
        return self.coarse + self.fine


def fade_around(mask: MaskArray) -> NDArray[np.float32]:
    """Return a weight for a filled mask, `(h, w)` in [0, 1]: 1 on it, falling to 0 at `FADE` from it."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    return np.clip(1 - ndimage.distance_transform_edt(~mask) / FADE, 0, 1).astype(np.float32)


def change_by(
    generated: Generated,
    surface: ImageArray,
    mask: MaskArray,
    size: tuple[int, int],
    detail: RealDetail | None,
    seed: int,
) -> Change:
    """Return what to add to a photograph: `α (G − R) + s (D − (N − R))`.

    N is the photograph, G what was generated, R the normal after the same autoencoder. Where generation changed little,
    s is 0 and the photograph keeps its own grain, which the autoencoder loses. Where it changed much, s is α and the
    result is `G + D`: no grain of what the defect replaced shines through, and D is the detail of a real defect, which
    the model loses as well; where none suits the mask, the photograph keeps its own. D is grey. On a mask that was
    filled, the colours of `N − R` stay: what the autoencoder loses of this surface's it loses of what lies on it, too,
    unless real defects show a material of their own; then what is lost of its colours takes their place
    (`RealDetail.tint`). Those of `G − R` are as coarse there as photographs store them. Where the real photographs have
    two levels, the result has these.

    Args:
        surface: `(H, W, 3)` uint8, the part of the photograph; it may end before `size` at the right and bottom.
        mask: `(H, W)` bool, the defect on it.
        size: width and height of the part, photograph pixels.
        detail: of real defects of the type; None to add none.
        seed: of the candidate.
    """
    height, width = surface.shape[:2]

    def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return enlarged(values, size)[:height, :width]

    change = generated.image - generated.reconstructed
    strength = ndimage.gaussian_filter(np.abs(change).mean(-1), SMOOTHED)
    least, most = FILLED if generated.filled else REPLACED
    replaced = generated.alpha * np.clip((strength - least) / (most - least), 0, 1)
    share = np.clip(placed(replaced.astype(np.float32)), 0, 1)[..., None]
    lost = surface - placed(generated.reconstructed)
    grain = lost.mean(2, keepdims=True) if generated.filled else lost
    coarse = _coarse_change(generated, size)[:height, :width]
    if detail is None:
        return Change(coarse, -share * grain)
    rng = np.random.default_rng([seed, DRAW])
    if detail.levels is not None:
        # A faded edge would be grey.
        where = mask[..., None].astype(np.float32)
        smooth = detail.levels.nearest(surface + coarse - share * grain)
        noise, _ = draw_detail(detail, smooth, mask, mask, rng)
        return Change(where * (smooth - surface), where * noise)
    drawn, fit = draw_detail(detail, placed(generated.image), mask, share[..., 0] > LEAST_SHARE, rng)
    fine = share * fit * (drawn - grain)
    if generated.filled and detail.tint is not None:
        fine = fine + share * (detail.tint - chroma(lost))
    return Change(coarse, fine)


def lay_coarse(generated: Generated, surface: ImageArray) -> ImageArray:
    """Lay what was generated on a photograph as it was drawn, without any detail: `N + α (G − R)`.

    Args:
        surface: `(H, W, 3)` uint8, the same part of the photograph, of any size.
    """
    height, width = surface.shape[:2]
    return np.clip(surface + _coarse_change(generated, (width, height)), 0, 255).round().astype(np.uint8)


def _coarse_change(generated: Generated, size: tuple[int, int]) -> Levels:
    """Return `α (G − R)` at this width and height, its colours blurred where a mask was filled."""
    change, alpha = generated.image - generated.reconstructed, generated.alpha
    if not generated.filled:
        return enlarged(change * alpha[..., None], size)
    grey = change.mean(2)
    colours = ndimage.gaussian_filter(enlarged(chroma(change), size), (CHROMA_BLUR, CHROMA_BLUR, 0))
    faded = np.clip(enlarged(alpha, size), 0, 1)
    return enlarged(grey * alpha, size)[..., None] + faded[..., None] * colours


def enlarged(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize `(h, w)` or `(h, w, 3)` to width and height."""
    if values.shape[1::-1] == size:
        return values
    if values.ndim == 3:
        return np.stack([enlarged(values[..., band], size) for band in range(values.shape[2])], -1)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
