"""Reading one image or mask that a user gave; whatever had to be converted is told.

Only pixels are passed on: metadata, colour profiles and what follows the image in the file stay behind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.decoding import ImageLimits, Source, content, decode, decoding
from service.core.errors import UsageError

ImageArray = NDArray[np.uint8]
"""`(H, W, 3)` RGB, 0–255."""

MaskArray = NDArray[np.bool_]
"""`(H, W)`, True = defect."""


def read_image(source: Source, name: str, limits: ImageLimits) -> tuple[ImageArray, list[str]]:
    """Read an image as 8-bit RGB, turned as its EXIF orientation says.

    Args:
        source: the file or its content.
        name: what to call it in messages.
        limits: what is accepted.

    Returns:
        The pixels, and what was converted, one phrase per conversion, without the name.

    Raises:
        UsageError: it cannot be read, is no single picture of an accepted format, is broken, or exceeds the limits.
    """
    label = f"image {name}"
    data = content(source, label, limits)
    with decoding(label):
        image, notes = decode(data, label, limits)
        pixels, conversions = _rgb(image, label)
    return pixels, notes + conversions


def read_mask(source: Source, name: str, limits: ImageLimits) -> tuple[MaskArray, list[str]]:
    """Read a mask: black is good, anything else of exactly two levels is defect.

    More than two grey levels are thresholded at half of the range. Colours are understood where there is one colour
    besides black, transparency where the mask was painted in one colour on a transparent layer.

    Args:
        source: the file or its content.
        name: what to call it in messages.
        limits: what is accepted.

    Returns:
        The mask, and what was converted or looks odd, one phrase each, without the name.

    Raises:
        UsageError: as for `read_image`, or the mask is empty, full or ambiguous.
    """
    label = f"mask {name}"
    data = content(source, label, limits)
    with decoding(label):
        image, notes = decode(data, label, limits)
        levels, conversions = _levels(image, label)
    mask, decisions = _binary(levels, label)
    if not mask.any():
        raise UsageError(f"{label} is empty: the defect must be white (255) on black (0)")
    if mask.all():
        raise UsageError(f"{label} is full: only the defect may be white (255), the rest must be black (0)")
    if mask.mean() > 0.5:
        decisions.append(f"white covers {mask.mean():.0%} of it; if black is the defect, invert the mask")
    return mask, notes + conversions + decisions


def _rgb(image: Image.Image, label: str) -> tuple[ImageArray, list[str]]:
    notes = []
    if image.mode.startswith("I"):
        values, bits = _integers(image, label)
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
        notes.append(f"{bits}-bit grey, scaled to 8 bits and repeated to RGB")
    elif image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = image.getchannel("A").getextrema() == (255, 255)
        notes.append("opaque alpha channel left out" if opaque else "transparency laid on white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode != "RGB":
        names = {"1": "black and white", "L": "grey", "P": "palette colours"}
        how = "repeated" if image.mode in {"1", "L"} else "converted"
        notes.append(f"{names.get(image.mode, image.mode)}, {how} to RGB")
    return np.array(image.convert("RGB")), notes


def _levels(image: Image.Image, label: str) -> tuple[NDArray[np.uint8], list[str]]:
    """The mask as one channel of 8 bits (a 16-bit mask whose values all fit in 8 bits keeps them)."""
    if image.mode.startswith("I"):
        values, bits = _integers(image, label)
        # A lowest label of a 16-bit mask must not be scaled away.
        scaled = np.maximum(values >> (bits - 8), values > 0)
        return scaled.astype(np.uint8), [f"{bits}-bit, scaled to 8 bits"] if bits > 8 else []
    if image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels; save it with 8 bits, 255 = defect and 0 = good")
    notes: list[str] = []
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        alpha = rgba[..., 3]
        if alpha.min() < 255:
            painted = rgba[alpha > 0][:, :3]
            if len(painted) == 0 or (painted == painted[0]).all():
                return alpha, ["painted on a transparent layer, the defect is what is opaque"]
            notes.append("transparency taken as black")
        pixels = (rgba[..., :3].astype(np.uint16) * alpha[..., None] // 255).astype(np.uint8)
    else:
        pixels = np.asarray(image.convert("RGB"))
    # JPEG's colour conversion may set the channels of a grey pixel a few levels apart.
    if np.ptp(pixels, axis=2).max() <= 8:
        return pixels[..., 1], notes
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours = np.unique(packed)
    if len(colours) == 2 and colours[0] == 0:
        return np.where(packed, np.uint8(255), np.uint8(0)), [*notes, f"coloured, the defect is #{int(colours[1]):06x}"]
    raise UsageError(
        f"{label} has {len(colours)} colours, so it is unclear which are the defect; save it as grey, 255 = defect and "
        "0 = good"
    )


def _binary(levels: NDArray[np.uint8], label: str) -> tuple[MaskArray, list[str]]:
    values = np.unique(levels)
    low, high = int(values[0]), int(values[-1])
    if len(values) == 1:
        return levels > 0, []
    if len(values) == 2:
        if low > high / 2:
            raise UsageError(f"{label} has the values {low} and {high} only: use 255 = defect and 0 = good")
        known = low == 0 and high in {1, 255}
        return levels == high, [] if known else [f"has the values {low} and {high}, {high} taken as defect"]
    what = f"not binary (values {low}..{high}, {len(values)} levels)"
    if high < 128:
        raise UsageError(f"{label} is {what}, so it is unclear which are the defect: use 255 = defect and 0 = good")
    notes = [f"{what}: thresholded at 128"]
    if np.mean((levels >= 32) & (levels < 224)) > 0.5:
        notes.append("most of it is neither black nor white: is it a photograph?")
    return levels >= 128, notes


def _integers(image: Image.Image, label: str) -> tuple[NDArray[np.int32], int]:
    """Grey values of more than 8 bits, and of how many: industrial cameras store 12 bits in 16."""
    values = np.asarray(image).astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UsageError(f"{label} has the values {low}..{high}: at most 16 bits (0..65535) per channel")
    return values, next(bits for bits in (8, 12, 16) if high < 1 << bits)
