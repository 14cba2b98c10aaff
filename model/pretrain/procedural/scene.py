"""Renders a defective part, the same part without the defect, and the exact mask of the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from model.pretrain.procedural import colours
from model.pretrain.procedural.alteration import over
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.captions import DEFECTS, describe
from model.pretrain.procedural.defects import DEFECTS as DEFECT_KINDS
from model.pretrain.procedural.faults import CIRCUIT_FAULTS
from model.pretrain.procedural.noise import Field, Rng, mix, plain, relief, rotated, smooth, step, white
from model.pretrain.procedural.objects import OBJECTS, background, place, shaded
from model.pretrain.procedural.surfaces import SURFACES
from model.types import ImageArray, MaskArray

SMALLEST_MASK = 6
"""Least number of mask pixels; smaller masks vanish in the latents."""

VISIBLE = 12.0
"""Mean difference (0-255) inside the mask that a defect must make."""

VISIBLE_LINE = 9.0
"""The same for cracks and scratches, because the eye follows a fainter line."""

LARGEST_MASK = 0.5
"""Share of the picture."""

ATTEMPTS = 8

_SURFACE_SHARE = 0.65
_FEATURED = {"magnet tile": 4.5, "cast metal": 1.6, "brushed metal": 1.5, "asphalt": 1.4, "printed circuit": 1.4}
_RARER = {
    "missing piece": 0.8,
    "fiber": 0.7,
    "bend": 0.7,
    "blowhole": 1.4,
    "crack": 2.2,
    "break": 1.5,
    "scratch": 1.6,
    "abrasion": 0.8,
    "unevenness": 0.7,
    "fracture": 0.6,
}
_BRITTLE = ("asphalt", "pavement", "concrete", "cookie", "biscuit", "ceramic tile")
_CRACK_SHARE = 11.0
_FRACTURE_SHARE = {"cookie": 8.0, "biscuit": 8.0}
_FAULT_SHARE = 5.0
_STRAY_FAULT = 0.05


@dataclass(frozen=True)
class Sample:
    """One procedural example.

    Attributes:
        image: `(H, W, 3)` uint8, with the defect.
        mask: `(H, W)` bool, True where the defect alters the picture visibly.
        normal: `(H, W, 3)` uint8, the same scene without the defect.
        object_mask: `(H, W)` bool, True on the part (everywhere, if it fills the frame).
        caption: names the part and the defect.
        part_caption: names the defect only.
        object_name: one of `CLASSES`.
        defect_name: one of `DEFECTS`.
    """

    image: ImageArray
    mask: MaskArray
    normal: ImageArray
    object_mask: MaskArray
    caption: str
    part_caption: str
    object_name: str
    defect_name: str


@dataclass(frozen=True)
class Camera:
    """How the scene becomes a photograph: the same for the defective and the faultless part."""

    light: Field
    exposure: float
    gamma: float
    grey: bool
    blur: float
    noise: Field

    @classmethod
    def draw(cls, rng: Rng, size: int, brightness: float, *, scanned: bool = False) -> Camera:
        """Random light, exposure (lower for a part of high `brightness`), colour, sharpness and sensor noise.

        A `scanned` part is lit evenly and shows hardly any noise.
        """
        k = size / 128
        u, v = rotated(size, rng.uniform(0, 6.3))
        light = 1 + rng.uniform(0, 0.3) * u / size + rng.uniform(0, 0.08) * smooth(rng, size, 45 * k)
        light = light - rng.uniform(0, 0.5) * (u * u + v * v) / size**2
        if rng.random() < 0.2:
            centre = rng.uniform(-0.5, 0.5, 2) * size
            glow = np.hypot(u - centre[0], v - centre[1]) / (rng.uniform(0.15, 0.45) * size)
            light = light + rng.uniform(0.1, 0.5) * np.exp(-(glow**2))
        grey = bool(rng.random() < 0.45)
        sensor = rng.uniform(0.002, 0.025)
        noise = white(rng, size)[..., None] if grey else rng.standard_normal((size, size, 3), dtype=np.float32)
        if scanned:
            calm, faint = np.ones_like(light), np.float32(0.15 * sensor) * noise
            return cls(calm, float(rng.uniform(0.9, 1.05)), 1.0, grey, float(rng.uniform(0, 0.5) * k), faint)
        return cls(
            light=light.astype(np.float32),
            exposure=min(float(rng.uniform(0.7, 1.25)), 0.78 / brightness),
            gamma=float(rng.uniform(0.8, 1.25)),
            grey=grey,
            blur=float(rng.uniform(0, 0.8) * k),
            noise=(noise * sensor).astype(np.float32),
        )

    def photograph(self, scene: Field) -> ImageArray:
        """`(H, W, 3)` colours in [0, 1] as uint8."""
        exposed = np.clip(scene * (self.light * self.exposure)[..., None], 0, 1) ** np.float32(self.gamma)
        if self.grey:
            luminance = exposed @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            exposed = luminance[..., None]
        if self.blur > 0.25:
            exposed = gaussian_filter(exposed, (self.blur, self.blur, 0))
        levels = np.clip((exposed + self.noise) * 255 + 0.5, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(levels, scene.shape))


def _cut(rng: Rng, size: int, *, upright: bool) -> Field:
    """Distance inside a part that ends within the frame, at straight sides or a corner; `upright`: left and right."""
    half = size / 2
    angle = float(rng.choice([0.0, np.pi / 2, np.pi, 1.5 * np.pi])) if not upright else float(rng.choice([0.0, np.pi]))
    angle += float(rng.normal(0, 0.03)) if upright or rng.random() < 0.7 else float(rng.uniform(0, 6.3))
    u, v = rotated(size, angle)
    distance = rng.uniform(0.8 if upright and rng.random() < 0.7 else 0.15, 0.95) * half - u
    if rng.random() < 0.5:
        distance = np.minimum(distance, rng.uniform(0.4, 0.95) * half + u)
    elif rng.random() < 0.5:
        distance = np.minimum(distance, rng.uniform(0.3, 0.9) * half - v)
    return (distance + smooth(rng, size, 8) * rng.uniform(0, 0.5)).astype(np.float32)


def _surface(rng: Rng, size: int) -> tuple[str, Canvas]:
    names = list(SURFACES)
    weights = np.array([_FEATURED.get(name, 1.0) for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    picture = np.clip(SURFACES[name](rng, size), 0, 1)
    magnet = name == "magnet tile"
    if magnet and rng.random() < 0.3:
        picture = picture * np.float32(rng.uniform(0.45, 0.85))
    behind = background(rng, size)
    if rng.random() < 0.55 and (magnet or rng.random() < 0.6):
        behind = plain(colours.grey(rng, 0.0, 0.1), size)
    if rng.random() >= (0.6 if magnet else 0.38):
        deep = plain(picture.mean(axis=(0, 1)) * np.float32(0.25), size)
        return name, Canvas(picture, deep, np.full((size, size), size, dtype=np.float32))
    distance = _cut(rng, size, upright=magnet)
    width = rng.uniform(1.0, 5.0) * size / 128
    lip = relief((width * np.clip(distance / width, 0, 1)).astype(np.float32), rng.uniform(0, 6.3))
    picture = np.clip(picture * (1 + rng.uniform(0.1, 0.5) * lip)[..., None], 0, 1).astype(np.float32)
    return name, Canvas(mix(behind, picture, step(distance)), behind, distance)


def _object(rng: Rng, size: int) -> tuple[str, Canvas]:
    name = str(rng.choice(list(OBJECTS)))
    frame = place(rng, size)
    picture, distance = OBJECTS[name](rng, frame)
    picture = shaded(rng, frame, picture, distance)
    behind = background(rng, size)
    if abs(float(behind.mean()) - float(picture[distance > 0].mean())) < 0.12:
        behind = plain(colours.grey(rng, 0.0, 0.08), size)
    fallen = rng.uniform(1, 6) * size / 128
    behind = behind * (1 - rng.uniform(0, 0.5) * np.exp(-np.maximum(-distance, 0) / fallen))[..., None]
    return name, Canvas(mix(behind, picture, step(distance)), behind.astype(np.float32), distance.astype(np.float32))


def _defect_weights(object_name: str) -> NDArray[np.float64]:
    """Return how often each of `DEFECTS` occurs on a part: brittle ones crack, circuits have their own faults."""
    shares = {name: _RARER.get(name, 1.0) for name in DEFECTS}
    faults = _FAULT_SHARE if "circuit" in object_name else _STRAY_FAULT
    shares.update(dict.fromkeys(CIRCUIT_FAULTS, faults))
    if any(word in object_name for word in _BRITTLE):
        shares["crack"] = _CRACK_SHARE
        shares["fracture"] = _FRACTURE_SHARE.get(object_name, shares["fracture"])
    if object_name == "magnet tile":
        shares.update({name: 2 * shares[name] for name in ("crack", "break", "blowhole")})
    return np.array(list(shares.values()))


def render(seed: int, size: int = 128) -> Sample:
    """Render one sample; the same `(seed, size)` always gives the same one.

    Args:
        seed: any non-negative integer.
        size: pixels per side, from 32.
    """
    rng = np.random.default_rng([seed, size])
    object_name, canvas = _surface(rng, size) if rng.random() < _SURFACE_SHARE else _object(rng, size)
    scanned = bool(rng.random() < (0.6 if "circuit" in object_name else 0.04))
    camera = Camera.draw(rng, size, float(canvas.picture[canvas.distance > 0].mean()), scanned=scanned)
    normal = camera.photograph(canvas.picture)
    on_part = step(canvas.distance)
    weights = _defect_weights(object_name)
    defect_name = str(rng.choice(DEFECTS, p=weights / weights.sum()))
    visible = VISIBLE_LINE if defect_name in ("crack", "scratch") else VISIBLE
    instances = int(rng.choice([1, 2, 3, 4], p=[0.8, 0.1, 0.06, 0.04]))
    if defect_name in ("crack", "fracture"):
        instances = min(instances, 2)
    strength, clearest, best = 1.0, -1.0, (normal, np.zeros(normal.shape[:2], dtype=np.bool_))
    for _ in range(ATTEMPTS):
        defect = DEFECT_KINDS[defect_name](rng, canvas, strength)
        for _ in range(instances - 1):
            defect = over(defect, DEFECT_KINDS[defect_name](rng, canvas, strength))
        coverage = defect.coverage * on_part
        image = camera.photograph(mix(canvas.picture, defect.picture, coverage))
        mask = coverage >= 0.4
        area = int(mask.sum())
        if SMALLEST_MASK <= area <= LARGEST_MASK * mask.size:
            change = float(np.abs(image.astype(np.int16) - normal)[mask].mean())
            if change > clearest:
                clearest, best = change, (image, mask)
            if change >= visible:
                break
        strength *= 1.35
    image, mask = best
    if not mask.any():
        return render(seed + 2**32, size)
    caption = describe(rng, object_name, defect_name)
    return Sample(image, mask, normal, canvas.distance > 0, caption, defect_name, object_name, defect_name)
