"""Finds copies of a defect inside its mask, wherever it was put and whatever lies around it.

A copy may be turned by any angle, mirrored, a little larger or smaller, brighter or of more contrast. A coarse polar
picture of each defect finds the few known defects that may be the same, and how they are turned: turning shifts it
along its angle, so a Fourier transform tries all angles at once. These few are then laid on the candidate pixel by
pixel, at its own resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box
from model.types import ImageArray, MaskArray

ANGLES, RADII = 64, 16
"""Size of a polar picture."""

SUSPECTS = 3
"""Number of known defects that are compared pixel by pixel."""

LARGER = 1.5
"""Largest ratio of the sizes of a copy and its original."""

SNAP = np.deg2rad(12)
"""Turns this close to a multiple of a right angle are tried as that multiple, which needs no interpolation."""

PROMISING = 0.6
"""Likeness at the coarse angle from which on angles beside it are tried."""

CORE = 9
"""Least pixels of a defect without its rim, where the surface shines through, that are compared by themselves."""

FLAT = 2.0
"""Standard deviation, in grey levels, below which a defect has no structure that could be compared."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect to compare.

    Attributes:
        grey: `(h, w)` grey levels of the mask's box.
        mask: `(h, w)` bool.
        centre: `(2,)` mean place of the mask in its box, rows and columns.
        radius: distance of the mask's farthest pixel from there, pixels.
        spectrum: `(2, RADII, ANGLES // 2 + 1)` Fourier transforms along the angle of mask and content as they look
            about the centre; both have unit length.
    """

    grey: NDArray[np.float32]
    mask: MaskArray
    centre: NDArray[np.float64]
    radius: float
    spectrum: NDArray[np.complex64]


def find_defect(image: ImageArray, mask: MaskArray) -> Defect:
    """Describe a defect.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
    """
    box = bounding_box(mask)
    grey, mask = image[box].mean(axis=2, dtype=np.float32), mask[box]
    places = np.argwhere(mask)
    centre = places.mean(axis=0)
    radius = float(np.sqrt(np.square(places - centre).sum(axis=1).max())) + 0.5
    angles = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    radii = (np.arange(RADII) + 0.5) / RADII * radius
    where = centre[:, None, None] + radii[:, None] * np.stack([np.sin(angles), np.cos(angles)])[:, None]
    shape = ndimage.map_coordinates(mask.astype(np.float32), where, order=1, mode="constant")
    content = ndimage.map_coordinates((grey - grey[mask].mean()) * mask, where, order=1, mode="constant")
    weight = np.sqrt(radii)[:, None]
    pictures = np.stack([_unit(shape * weight), _unit(content * weight)])
    return Defect(grey, mask, centre, radius, np.fft.rfft(pictures, axis=-1).astype(np.complex64))


class KnownDefects:
    """Defects that no candidate may copy."""

    def __init__(self) -> None:
        self._defects: list[Defect] = []
        self._spectra = np.empty((0, 2, RADII, ANGLES // 2 + 1), np.complex64)

    def __len__(self) -> int:
        return len(self._defects)

    def add(self, defect: Defect) -> None:
        """Add one more."""
        if len(self._defects) == len(self._spectra):
            more = np.empty((max(16, len(self._spectra)), *self._spectra.shape[1:]), np.complex64)
            self._spectra = np.concatenate([self._spectra, more])
        self._spectra[len(self._defects)] = defect.spectrum
        self._defects.append(defect)

    def likeness(self, defect: Defect) -> float:
        """Return the highest likeness to a known defect, in [0, 1]; 0 without any."""
        found = (
            _overlaid(defect, self._defects[number], angle, mirrored=mirrored)
            for number, mirrored, angle in self._suspects(defect)
        )
        return max(found, default=0.0)

    def _suspects(self, defect: Defect) -> Iterator[tuple[int, bool, float]]:
        """Yield the known defects that may be the same: number, whether mirrored, and the angle they are turned by."""
        if not self._defects:
            return
        spectra = self._spectra[: len(self._defects)]
        radii = np.array([known.radius for known in self._defects])
        sized = np.maximum(radii / defect.radius, defect.radius / radii) <= LARGER
        for mirrored, own in ((False, defect.spectrum), (True, defect.spectrum.conj())):
            products = np.einsum("prf,nprf->npf", own, spectra.conj())
            correlation = np.fft.irfft(products, ANGLES, axis=-1).sum(axis=1)
            best = np.where(sized, correlation.max(axis=-1), -np.inf)
            for number in np.argsort(-best)[:SUSPECTS]:
                if np.isfinite(best[number]):
                    angle = float(correlation[number].argmax()) * 2 * np.pi / ANGLES
                    yield int(number), mirrored, -angle if mirrored else angle


def usual_likeness(defects: Sequence[Defect]) -> float:
    """Return the likeness to the most alike other one that half of the defects, at least, do not exceed.

    One defect that was photographed twice does not make all defects of its kind alike.
    """
    nearest = []
    for number, defect in enumerate(defects):
        others = KnownDefects()
        for other in (*defects[:number], *defects[number + 1 :]):
            others.add(other)
        nearest.append(others.likeness(defect))
    return sorted(nearest)[(len(nearest) - 1) // 2] if nearest else 0.0


def _overlaid(defect: Defect, known: Defect, angle: float, *, mirrored: bool) -> float:
    """Lay a known defect on another; returns the best likeness near this angle."""
    quarter = round(angle / (np.pi / 2)) * (np.pi / 2)
    first = quarter if abs(angle - quarter) <= SNAP else angle
    likeness = _likeness_at(defect, known, first, mirrored=mirrored)
    if likeness < PROMISING:
        return likeness
    nearby = (angle + step * np.pi / ANGLES for step in (-1, 0, 1))
    return max(likeness, *(_likeness_at(defect, known, each, mirrored=mirrored) for each in nearby))


def _likeness_at(defect: Defect, known: Defect, angle: float, *, mirrored: bool) -> float:
    """Return the lesser of the masks' overlap and the contents' correlation, in [0, 1]."""
    scale = float(np.sqrt(known.mask.sum() / defect.mask.sum()))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * scale
    if mirrored:
        turn[0] = -turn[0]
    offset = known.centre - turn @ defect.centre
    shape = defect.mask.shape
    laid = (
        ndimage.affine_transform(known.mask.astype(np.float32), turn, offset, shape, order=1, mode="grid-constant")
        >= 0.5
    )
    both = laid & defect.mask
    if not both.any():
        return 0.0
    overlap = float(both.sum() / np.sqrt(float(defect.mask.sum()) * max(float(known.mask.sum()) / scale**2, 1.0)))
    if overlap < 0.5:
        return 0.0
    content = ndimage.affine_transform(known.grey, turn, offset, shape, order=1, mode="nearest")
    core = ndimage.binary_erosion(both)
    correlation = _correlation(defect.grey[both], content[both])
    if core.sum() >= CORE:
        correlation = max(correlation, _correlation(defect.grey[core], content[core]))
    return float(np.clip(min(overlap, correlation), 0.0, 1.0))


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the normalised correlation of two `(n,)` contents; 1 if neither has structure, near 0 if one has none."""
    deviations = float(one.std()), float(other.std())
    if max(deviations) < FLAT:
        return 1.0
    covariance = float(((one - one.mean()) * (other - other.mean())).mean())
    return covariance / (max(deviations[0], FLAT) * max(deviations[1], FLAT))


def _unit(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    norm = float(np.linalg.norm(picture))
    return picture / norm if norm > 0 else picture
