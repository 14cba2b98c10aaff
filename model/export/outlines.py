"""Converts masks to polygons without loss.

A polygon in COCO or YOLO is one ring and cannot have holes. A component is therefore traced as a single ring that walks
along a horizontal bridge into each hole and back: filled by the even-odd rule, as both readers do, it is the component.

The tracing is OpenCV's, which follows pixel centres of an 8-connected component. Readers differ in what a coordinate
means, so there are two rings: `edge_ring` along pixel edges, `inner_ring` just inside them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.types import MaskArray

_HAIR = 0.02
"""Distance in pixels, greater than the rounding error of six decimals on the largest image."""

Ring = NDArray[np.int64]
"""`(K, 2)` vertices `(x, y)` in pixels, closed implicitly."""


def components(mask: MaskArray) -> list[MaskArray]:
    """Return the 8-connected components of a mask, each `(H, W)` bool, in reading order of their first pixels."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return [labels == number for number in range(1, count + 1)]


def bounding_box(mask: MaskArray) -> tuple[int, int, int, int]:
    """Return `(x, y, width, height)` in pixels; all 0 for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, width, height


def edge_ring(component: MaskArray) -> Ring:
    """Trace the ring along pixel edges, where the pixel `(x, y)` covers `[x, x + 1] × [y, y + 1]`.

    In the doubled image the border pixels 2x and 2x + 1 lie either side of the centre of pixel x, and `(u + 1) // 2`
    takes each to its own edge: 2x to x, 2x + 1 to x + 1.

    Args:
        component: `(H, W)` bool, one 8-connected component.
    """
    crop, origin = _cropped(component)
    doubled = crop.repeat(2, axis=0).repeat(2, axis=1)
    return _without_straights((_trace(doubled) + 1) // 2) + origin


def inner_ring(component: MaskArray) -> NDArray[np.float64]:
    """Trace the ring just inside the border pixels' outer edges, so that truncated coordinates are those of the pixels.

    It differs from `edge_ring` by a tiny distance, so it is as wide as the component; a ring through pixel centres
    would be a pixel narrower.

    Args:
        component: `(H, W)` bool, one 8-connected component.

    Returns:
        `(K, 2)` vertices `(x, y)` in pixels.
    """
    crop, origin = _cropped(component)
    doubled = _without_straights(_trace(crop.repeat(2, axis=0).repeat(2, axis=1)))
    inside: NDArray[np.float64] = np.where(doubled % 2, 1 - _HAIR, _HAIR)
    return doubled // 2 + inside + origin


def _cropped(component: MaskArray) -> tuple[MaskArray, tuple[int, int]]:
    x, y, width, height = bounding_box(component)
    return component[y : y + height, x : x + width], (x, y)


def _trace(component: MaskArray) -> Ring:
    contours, hierarchy = cv2.findContours(component.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [contour[:, 0].astype(np.int64) for contour in contours]
    is_hole = hierarchy[0, :, 3] >= 0
    (ring,) = (ring for ring, hole in zip(rings, is_hole, strict=True) if not hole)
    holes = [ring for ring, hole in zip(rings, is_hole, strict=True) if hole]
    # From the left: the bridge of a hole then ends on the outline or on a hole already joined to it.
    for hole in sorted(holes, key=lambda hole: int(hole[:, 0].min())):
        ring = _joined(ring, hole, component)
    return ring


def _joined(ring: Ring, hole: Ring, component: MaskArray) -> Ring:
    start = int(hole[:, 0].argmin())
    x, y = hole[start]
    outside = np.flatnonzero(~component[y, :x])
    left = outside[-1] + 1 if len(outside) else 0
    landing = int(np.flatnonzero((ring == (left, y)).all(axis=1))[0])
    return np.concatenate([ring[: landing + 1], hole[start:], hole[: start + 1], ring[landing:]])


def _without_straights(ring: Ring) -> Ring:
    """Drop repeated vertices, then those where the ring goes straight on; those where it turns back are kept."""
    moved = (ring != np.roll(ring, 1, axis=0)).any(axis=1)
    if not moved.any():
        return ring[:1]
    ring = ring[moved]
    incoming = ring - np.roll(ring, 1, axis=0)
    outgoing = np.roll(ring, -1, axis=0) - ring
    cross = incoming[:, 0] * outgoing[:, 1] - incoming[:, 1] * outgoing[:, 0]
    dot = (incoming * outgoing).sum(axis=1)
    return ring[(cross != 0) | (dot < 0)]
