"""Reads one image or mask, and notes every conversion.

Only pixels are kept; metadata, colour profiles and data after the image are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.errors import UsageError
from service.core.uploads.brightness import Deep, common_range, scaled, warnings_of
from service.core.uploads.decoding import Decoded, ImageLimits, Source, content, decode, decoding
from service.core.uploads.mask_values import MaskLevels, binary, is_soft, meaning_of
from service.core.uploads.reading import COLOUR, Range, Reading
from service.core.uploads.tables import histogram, replaced

ImageArray = NDArray[np.uint8]
"""`(H, W, 3)` RGB, 0–255."""

MaskArray = NDArray[np.bool_]
"""`(H, W)`, True = defect."""

_LEAST_ALPHA = 26
"""If no pixel is more opaque than a tenth, the fourth channel is no alpha: as alpha, it would hide the picture."""

_MOST_COLOURS = 32
"""An image with more colours is not a mask of classes."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture before its EXIF orientation is applied.

    Attributes:
        stored: pixels as stored in the file.
        orientation: EXIF orientation, 1 to 8.
        notes: conversions, one phrase each.
        brightness: the values that became black and white; None if the file has 8 bits.
    """

    stored: ImageArray
    orientation: int
    notes: list[str]
    brightness: Range | None = None

    def turned(self) -> ImageArray:
        """Apply the EXIF orientation."""
        return turned(self.stored, self.orientation)


def read_image(
    source: Source, name: str, limits: ImageLimits, brightness: Range | None = None
) -> tuple[ImageArray, list[str]]:
    """Read an image as 8-bit RGB with its EXIF orientation applied.

    Args:
        source: the file or its content.
        name: name for messages.
        limits: limits of accepted images.
        brightness: values that become black and white if the file has more than 8 bits; None derives them from it.

    Returns:
        The pixels, and one phrase per conversion, without the name.

    Raises:
        UsageError: it cannot be read, is not a single picture of an accepted format, is broken, or exceeds the limits.
    """
    photograph = read_photograph(source, name, limits, brightness)
    return photograph.turned(), photograph.notes + turning_note(photograph.orientation)


def read_photograph(
    source: Source, name: str, limits: ImageLimits, brightness: Range | None = None, *, kind: str = "image"
) -> Photograph:
    """Read an image like `read_image`, without applying its EXIF orientation; messages call it by its kind."""
    label = f"{kind} {name}"
    data = content(source, label, limits)
    with decoding(label):
        decoded = decode(data, label, limits)
        span = None if decoded.deep is None else brightness or common_range([decoded.deep]) or (0, 65535)
        pixels, conversions = _rgb(decoded, label, span)
    return Photograph(pixels, decoded.orientation, decoded.notes + conversions, span)


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation, 1 to 8, to pixels `(H, W, ...)`."""
    if orientation == 1:
        return pixels
    seen = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: np.rot90(pixels, 2).swapaxes(0, 1),
        8: lambda: np.rot90(pixels),
    }[orientation]()
    return np.ascontiguousarray(seen)


def turning_note(orientation: int) -> list[str]:
    """Return the note on a rotated picture; empty if it was not rotated."""
    return ["EXIF orientation applied"] if orientation != 1 else []


def read_mask(
    source: Source, name: str, limits: ImageLimits, reading: Reading | None = None
) -> tuple[MaskArray, list[str]]:
    """Read a single mask: of exactly two levels, black is good and the other is the defect.

    More than two grey levels are either a soft edge, which is thresholded at half of the range, or ids of classes.
    Colours are accepted if there is one besides black, and transparency if the mask was painted in one colour on a
    transparent layer.

    Args:
        source: the file or its content.
        name: name for messages.
        limits: limits of accepted images.
        reading: choice of the values that are the defect.

    Returns:
        The mask, and one phrase on each conversion or oddity, without the name.

    Raises:
        UsageError: as for `read_image`, or the mask is empty, full or ambiguous.
    """
    levels = read_levels(source, name, limits)
    meaning = meaning_of([levels], None if reading is None else reading.mask_values)
    mask, decisions = binary(levels, meaning, f"mask {name}")
    return mask, levels.notes + decisions


def read_levels(source: Source, name: str, limits: ImageLimits) -> MaskLevels:
    """Read a mask's levels with its EXIF orientation applied, without deciding which are the defect."""
    label = f"mask {name}"
    data = content(source, label, limits)
    with decoding(label):
        decoded = decode(data, label, limits)
        levels, notes = _levels(decoded, label)
    table, codes = levels
    counts = tuple(map(int, histogram(codes, len(table))))
    notes = decoded.notes + turning_note(decoded.orientation) + notes
    return MaskLevels(
        turned(codes, decoded.orientation),
        table,
        counts,
        decoded.lossy,
        is_soft(codes, table, lossy=decoded.lossy),
        notes,
    )


def _rgb(decoded: Decoded, label: str, span: Range | None) -> tuple[ImageArray, list[str]]:
    image, notes = decoded.image, []
    if decoded.deep is not None and span is not None:
        low, high = span
        pixels = scaled(decoded.deep, span)
        grey = pixels.ndim == 2
        bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 1 << bits)
        what = f"{bits}-bit grey" if grey else f"{bits} bits per channel"
        how = "scaled to 8 bits and repeated to RGB" if grey else "scaled to 8 bits"
        notes.append(f"{what}, {low}..{high} {how} (--brightness, form field brightness, changes the range)")
        notes += warnings_of(decoded.deep, pixels, span)
        if not image.has_transparency_data:
            return np.stack([pixels] * 3, axis=2) if grey else pixels, notes
        alpha = image.getchannel("A")
        image = Image.fromarray(pixels).convert("RGB")
        image.putalpha(alpha)
    if image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"))
        if opacity.max() < _LEAST_ALPHA:
            notes.append("alpha channel ignored, it would hide every pixel")
            return np.array(image.convert("RGB")), notes
        opaque = opacity.min() == 255
        notes.append("opaque alpha channel removed" if opaque else "transparency filled with white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode != "RGB":
        names = {"1": "black and white", "L": "grey", "P": "palette colours"}
        how = "repeated" if image.mode in {"1", "L"} else "converted"
        notes.append(f"{names.get(image.mode, image.mode)}, {how} to RGB")
    return np.array(image.convert("RGB")), notes


_Coded = tuple[tuple[int, ...], NDArray[np.uint8]]
"""The values that occur, ascending, and the index of each pixel's value among them."""


def _levels(decoded: Decoded, label: str) -> tuple[_Coded, list[str]]:
    image = decoded.image
    if decoded.deep is not None and decoded.deep.ndim == 2:
        return _deep_levels(decoded.deep)
    if image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels; save it with 8 bits, 255 = defect and 0 = good")
    if image.mode in {"1", "L"} and not image.has_transparency_data:
        return _coded(np.asarray(image.convert("L"))), []
    if not image.has_transparency_data:
        return _colour_levels(np.asarray(image.convert("RGB")), image, label)
    rgba = np.asarray(image.convert("RGBA"))
    alpha, notes = rgba[..., 3], []
    if alpha.max() < _LEAST_ALPHA and rgba[..., :3].any():
        notes.append("alpha channel ignored, it would hide every pixel")
        alpha = np.full_like(alpha, 255)
    elif alpha.min() < 255:
        painted = rgba[alpha > 0][:, :3]
        if len(painted) == 0 or (painted == painted[0]).all():
            return _coded(alpha), ["painted on a transparent layer, opaque pixels are the defect"]
        notes.append("transparency filled with black")
    pixels = (rgba[..., :3].astype(np.uint16) * alpha[..., None] // 255).astype(np.uint8)
    coded, more = _colour_levels(pixels, image, label)
    return coded, notes + more


def _colour_levels(pixels: NDArray[np.uint8], image: Image.Image, label: str) -> tuple[_Coded, list[str]]:
    # JPEG's colour conversion may set the channels of a grey pixel a few levels apart.
    if np.ptp(pixels, axis=2).max() <= 8:
        coded = _coded(pixels[..., 1])
        indices = _coded(np.asarray(image)) if image.mode == "P" else coded
        return (indices, [_BY_INDEX]) if len(indices[0]) > len(coded[0]) else (coded, [])
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours = np.unique(packed)
    notes = [f"coloured, the defect is #{int(colours[1]):06x}"] if len(colours) == 2 and colours[0] == 0 else []
    if image.mode == "P" and colours[0] == 0 and not pixels[np.asarray(image) == 0].any():
        return _coded(np.asarray(image)), notes or [_BY_INDEX]
    if len(colours) > _MOST_COLOURS:
        raise UsageError(
            f"{label} has {len(colours)} colours, so it is unclear which are the defect; save it as grey, 255 = defect "
            "and 0 = good"
        )
    table = tuple(int(colour) and COLOUR + int(colour) for colour in colours)
    return (table, np.searchsorted(colours, packed).astype(np.uint8)), notes


_BY_INDEX = "palette colours, distinguished by their index"


def _deep_levels(values: Deep) -> tuple[_Coded, list[str]]:
    most = int(values.max())
    bits = next(bits for bits in (8, 12, 16) if most < 1 << bits)
    used = np.count_nonzero(histogram(values, 1 << 16))
    if bits == 8 or used <= 256:
        return _coded(values), [f"{bits}-bit"] if bits > 8 else []
    # The lowest labels of a 16-bit mask must not be scaled to 0.
    levels = np.maximum(values >> (bits - 8), values > 0).astype(np.uint8)
    return _coded(levels), [f"{bits}-bit, scaled to 8 bits"]


def _coded(levels: NDArray[np.uint8] | NDArray[np.uint16]) -> _Coded:
    counts = histogram(levels, 1 + int(levels.max()))
    (used,) = np.nonzero(counts)
    places = (np.cumsum(counts > 0) - 1).astype(np.uint8)
    return tuple(map(int, used)), replaced(levels, places)
