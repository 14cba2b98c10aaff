"""Files as cameras, annotation tools and public data sets write them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.core.errors import UsageError
from service.core.uploads.images import ImageLimits, read_image, read_mask
from service.core.uploads.pairs import PairSet, read_normals, read_pairs, shared_reading
from service.core.uploads.reading import COLOUR, Reading, chosen_reading

LIMITS = ImageLimits()
WIDTH, HEIGHT = 64, 48


def scene(seed: int) -> NDArray[np.float64]:
    """A grey part, 0 to 1, with a dark scratch where `scratch` says."""
    picture = 0.6 + np.random.default_rng(seed).normal(0, 0.02, (HEIGHT, WIDTH))
    return np.where(scratch(seed), 0.3, picture)


def scratch(seed: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[6 + 3 * seed : 10 + 3 * seed, 10:40] = True
    return mask


def encoded(pixels: NDArray[np.generic] | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(file, kind, **options)
    return file.getvalue()


def grey(seed: int) -> NDArray[np.uint8]:
    return (scene(seed) * 255).astype(np.uint8)


def white(mask: NDArray[np.bool_]) -> bytes:
    return encoded(mask.astype(np.uint8) * 255)


PICTURES = {f"{n}.png": encoded(grey(n)) for n in range(3)}
MASKS = {f"{n}.png": white(scratch(n)) for n in range(3)}


def read(images: dict[str, bytes], masks: dict[str, bytes] | None = None, reading: Reading | None = None) -> PairSet:
    return read_pairs(images, MASKS if masks is None else masks, LIMITS, reading)


def refused(*args: object, reading: Reading | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_pairs(*args, LIMITS, reading)  # type: ignore[arg-type]
    return "\n".join(caught.value.problems)


def is_right(pairs: PairSet) -> bool:
    """Whether every mask lies on a scratch that is clearly darker than its surroundings."""
    return all(
        float(pair.image[pair.mask].mean()) + 30 < float(pair.image[~pair.mask].mean()) and pair.mask.sum() > 100
        for pair in pairs.pairs
    )


class TestBrightness:
    @pytest.mark.parametrize("bits", [10, 12, 14, 16])
    def test_the_bits_that_a_camera_uses_are_found(self, bits: int) -> None:
        images = {f"{n}.png": encoded((scene(n) * ((1 << bits) - 1)).astype(np.uint16)) for n in range(3)}
        pairs = read(images)
        for n, pair in enumerate(pairs.pairs):
            assert abs(pair.image[..., 0].astype(int) - grey(n)).max() <= 1
        assert f"{bits}-bit grey, 0..{(1 << bits) - 1} scaled to 8 bits" in pairs.notes[0]

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_sixteen_bits_per_channel_keep_what_they_hold(self, kind: str) -> None:
        deep = np.repeat((scene(0) * 4000).astype(np.uint16)[..., None], 3, axis=2)
        data = png_of_sixteen(deep) if kind == "PNG" else tiff_of(deep, 2)
        image, notes = read_image(data, "a", LIMITS)
        assert abs(image.astype(int) - (deep.astype(int) * 256 // 4096)).max() == 0
        assert "12 bits per channel" in notes[0]

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_colours_stored_plane_by_plane_keep_what_they_hold(self, channels: int, compression: str | None) -> None:
        planes = [(scene(n) * 4000).astype(np.uint16) for n in range(3)]
        planes += [np.full_like(planes[0], 65535)] * (channels - 3)
        file = io.BytesIO()
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        tifffile.imwrite(
            file, np.stack(planes), photometric="rgb", planarconfig="separate", compression=compression, **extra
        )
        image, notes = read_image(file.getvalue(), "a", LIMITS)
        for n in range(3):
            np.testing.assert_array_equal(image[..., n], planes[n].astype(int) * 256 // 4096)
        assert "12 bits per channel" in notes[0]

    def test_a_narrow_band_is_spread(self) -> None:
        images = {f"{n}.png": encoded((21000 + scene(n) * 1500).astype(np.uint16)) for n in range(3)}
        pairs = read(images)
        assert is_right(pairs)
        assert all(np.ptp(pair.image) > 150 for pair in pairs.pairs)

    def test_hot_pixels_do_not_darken_a_narrow_band(self) -> None:
        deep = (800 + np.kron(scene(0), np.ones((8, 8))) * 600).astype(np.uint16)
        deep[0, 0] = 65535
        image, _ = read_image(encoded(deep), "a", LIMITS)
        assert np.ptp(image[5:]) > 100

    def test_one_range_serves_images_and_normals(self) -> None:
        images = {f"{n}.png": encoded((scene(n) * 900).astype(np.uint16)) for n in range(3)}
        normals = {"good.png": encoded((scene(5) * 16000).astype(np.uint16))}
        reading = shared_reading(Reading(), images, MASKS, normals, LIMITS)
        assert reading.brightness == (0, 16383)
        pairs = read(images, reading=reading)
        assert pairs.pairs[0].image.max() < 16
        assert any("levels remain" in note for note in pairs.notes)
        assert read_normals(normals, LIMITS, reading).images[0].image.max() > 100

    def test_further_defect_types_and_what_was_used_are_part_of_it(self) -> None:
        images = {f"{n}.png": encoded((scene(n) * 900).astype(np.uint16)) for n in range(3)}
        others = {f"{n}.png": encoded((scene(n + 3) * 16000).astype(np.uint16)) for n in range(3)}
        reading = shared_reading(Reading(), images, MASKS, None, LIMITS, [(others, MASKS)])
        assert read(images, reading=reading).brightness == (0, 16383)
        assert read(PICTURES, reading=reading).brightness is None
        assert read_normals(others, LIMITS, reading).brightness == (0, 16383)
        assert read_normals(PICTURES, LIMITS, reading).brightness is None

    def test_a_chosen_range_is_taken(self) -> None:
        images = {f"{n}.png": encoded((scene(n) * 1000).astype(np.uint16)) for n in range(3)}
        pairs = read(images, reading=chosen_reading("0:4095", None))
        assert pairs.pairs[0].image.max() < 64

    def test_white_is_zero_at_every_depth(self) -> None:
        for bits, kind in ((8, np.uint8), (16, np.uint16)):
            most = (1 << bits) - 1
            data = tiff_of((most - scene(0) * most).astype(kind), 0)
            image, _ = read_image(data, "a", LIMITS)
            assert abs(image[..., 0].astype(int) - grey(0)).max() <= 1

    @pytest.mark.parametrize("text", ["5", "9:3", "0:70000", "a:b", "-1:5"])
    def test_what_is_no_range_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="must be LOW:HIGH"):
            chosen_reading(text, None)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_sixteen(pixels: NDArray[np.uint16]) -> bytes:
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def tiff_of(pixels: NDArray[np.uint8] | NDArray[np.uint16], photometric: int) -> bytes:
    """An uncompressed little-endian TIFF; photometric 0 is white-is-zero, 1 grey, 2 RGB."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data, bits = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(), 8 * pixels.itemsize
    place = 8 + len(data)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: channels, 278: height}
    tags[279] = len(data)
    entries = b""
    for tag, value in sorted(tags.items()):
        if tag == 258 and channels > 1:
            entries += struct.pack("<HHII", tag, 3, channels, place)
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    depths = struct.pack(f"<{channels}H", *[bits] * channels)
    start = place + len(depths)
    return b"II*\0" + struct.pack("<I", start) + data + depths + struct.pack("<H", len(tags)) + entries + bytes(4)


class TestMaskValues:
    def test_a_border_to_ignore_is_not_the_defect(self) -> None:
        ids = {}
        for n in range(3):
            levels = scratch(n).astype(np.uint8)
            levels[4 + 3 * n : 6 + 3 * n, 10:40] = 255
            ids[f"{n}.png"] = encoded(levels)
        pairs = read(PICTURES, ids)
        for n, pair in enumerate(pairs.pairs):
            np.testing.assert_array_equal(pair.mask, scratch(n))
        assert any("255 ignored as a border" in note for note in pairs.notes)

    def test_what_is_ignored_in_one_mask_is_ignored_in_all(self) -> None:
        both = scratch(0).astype(np.uint8)
        both[0, :30] = 255
        masks = {**MASKS, "0.png": encoded(both), "1.png": encoded(scratch(1).astype(np.uint8))}
        assert "mask 2.png has no defect: it contains only 255" in refused(PICTURES, masks)

    @pytest.mark.parametrize("levels", [(70, 210), (120, 240), (1, 2), (128, 255)])
    def test_several_classes_are_refused_and_one_can_be_chosen(self, levels: tuple[int, int]) -> None:
        ids = {}
        for n in range(3):
            mask = np.where(scratch(n), levels[0], 0)
            mask[40:44, 10:40] = levels[1]
            ids[f"{n}.png"] = encoded(mask.astype(np.uint8))
        told = refused(PICTURES, ids)
        assert f"several classes: {levels[0]} (in 3 of 3), {levels[1]} (in 3 of 3)" in told
        assert f"--mask-values {levels[0]}" in told
        one = read(PICTURES, ids, chosen_reading(None, f"{levels[0]}"))
        np.testing.assert_array_equal(one.pairs[2].mask, scratch(2))
        every = read(PICTURES, ids, chosen_reading(None, f"{levels[0]}, {levels[1]}"))
        assert every.pairs[2].mask.sum() == scratch(2).sum() + 120

    def test_one_class_per_mask_is_several_classes_too(self) -> None:
        masks = {f"{n}.png": encoded(scratch(n).astype(np.uint8) * (1 + n // 2)) for n in range(3)}
        assert "several classes: 1 (in 2 of 3), 2 (in 1 of 3)" in refused(PICTURES, masks)

    def test_colours_can_be_chosen(self) -> None:
        masks = {}
        for n in range(3):
            mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            mask[scratch(n)] = (255, 0, 0)
            mask[40:44, 10:40] = (0, 255, 0)
            masks[f"{n}.png"] = encoded(mask)
        assert "several classes: #00ff00 (in 3 of 3), #ff0000 (in 3 of 3)" in refused(PICTURES, masks)
        reading = chosen_reading(None, "#FF0000")
        assert reading.mask_values == {COLOUR + 0xFF0000}
        assert is_right(read(PICTURES, masks, reading))

    def test_a_palette_of_ids_is_read_by_index(self) -> None:
        masks = {}
        for n in range(3):
            levels = scratch(n).astype(np.uint8)
            levels[0, :40] = 255
            image = Image.fromarray(levels)
            image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 759 + [224, 224, 192])
            masks[f"{n}.png"] = encoded(image)
        assert is_right(read(PICTURES, masks))

    @pytest.mark.parametrize("supersampled", [2, 4])
    def test_a_soft_edge_is_no_class(self, supersampled: int) -> None:
        yy, xx = np.mgrid[: HEIGHT * supersampled, : WIDTH * supersampled] / supersampled
        disc = (yy - 20) ** 2 + (xx - 30) ** 2 < 12**2
        soft = disc.reshape(HEIGHT, supersampled, WIDTH, supersampled).mean(axis=(1, 3)) * 255
        mask, notes = read_mask(encoded(soft.astype(np.uint8)), "a", LIMITS)
        assert abs(mask.sum() - np.pi * 12**2) < 20
        assert "thresholded at 128" in notes[0]

    def test_classes_in_a_lossy_mask_are_refused(self) -> None:
        mask = np.where(scratch(0), 120, 0).astype(np.uint8)
        mask[30:44, 10:40] = 240
        with pytest.raises(UsageError, match="classes cannot be distinguished in a lossy format"):
            read_mask(encoded(mask, "JPEG", quality=95), "a", LIMITS)

    def test_a_border_beside_the_ids_is_told_with_them(self) -> None:
        masks = {
            f"{n}.png": encoded(np.where(scratch(n), 1, 254 * (np.arange(HEIGHT) > 40)[:, None]).astype(np.uint8))
            for n in range(3)
        }
        assert "several classes: 1 (in 3 of 3), 254 (in 3 of 3)" in refused(PICTURES, masks)

    @pytest.mark.parametrize("level", [127, 128])
    def test_a_wide_band_of_one_level_is_no_soft_edge(self, level: int) -> None:
        masks = {}
        for n in range(3):
            band = np.asarray(Image.fromarray(scratch(n)).convert("L").filter(ImageFilter.MaxFilter(5))) > 0
            masks[f"{n}.png"] = encoded(np.where(scratch(n), 255, band * level).astype(np.uint8))
        assert f"several classes: {level} (in 3 of 3), 255 (in 3 of 3)" in refused(PICTURES, masks)
        assert is_right(read(PICTURES, masks, chosen_reading(None, "255")))

    def test_dust_does_not_make_the_defect_a_border(self) -> None:
        masks = {}
        for n in range(3):
            levels = scratch(n) * np.uint8(255)
            levels[0, 0] = 3
            masks[f"{n}.png"] = encoded(levels)
        assert "several classes: 3 (in 3 of 3), 255 (in 3 of 3)" in refused(PICTURES, masks)

    def test_ids_in_a_lossy_mask_are_refused(self) -> None:
        masks = {f"{n}.jpg": encoded(scratch(n).astype(np.uint8), "JPEG") for n in range(3)}
        assert "so it is unclear which are defect" in refused(PICTURES, masks)

    def test_a_mask_of_nothing_but_the_border_is_refused_with_the_choice(self) -> None:
        masks = {f"{n}.png": encoded(scratch(n) * np.uint8(255)) for n in range(3)}
        border = scratch(0).astype(np.uint8)
        border[30:34] = 255
        told = refused(PICTURES, masks | {"0.png": encoded(border)})
        assert "mask 1.png has no defect: it contains only 255, a border to ignore (--mask-values" in told

    def test_colours_on_another_ground_than_black_can_be_chosen(self) -> None:
        masks = {}
        for n in range(3):
            colours = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
            colours[scratch(n)] = (255, 0, 0)
            masks[f"{n}.png"] = encoded(colours)
        assert "choose with --mask-values #ff0000 or #ffffff" in refused(PICTURES, masks)
        assert is_right(read(PICTURES, masks, chosen_reading(None, "#ff0000")))

    def test_dust_is_left_out_but_not_a_defect_of_single_pixels(self) -> None:
        mask = scratch(0)
        mask[30:45:5, 3:60:20] = True
        cleaned, notes = read_mask(white(mask), "a", LIMITS)
        np.testing.assert_array_equal(cleaned, scratch(0))
        assert notes == ["9 stray pixels beside the defect removed"]
        dots = np.zeros((HEIGHT, WIDTH), np.bool_)
        dots[::6, ::6] = True
        assert read_mask(white(dots), "a", LIMITS)[0].sum() == dots.sum()


class TestMetadata:
    def test_the_first_picture_of_several_in_a_jpeg_is_taken(self) -> None:
        image = Image.fromarray(grey(0)).convert("RGB")
        data = encoded(image, "MPO", save_all=True, append_images=[image.resize((32, 24))], quality=95)
        pixels, notes = read_image(data, "a", LIMITS)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert notes == ["contains several pictures, the first is used"]

    @pytest.mark.parametrize(
        "extra",
        [
            pytest.param(chunk(b"eXIf", b"\x00\x08\x00\x02\x01\x12\x00\x03"), id="no EXIF"),
            pytest.param(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3 << 20))), id="large profile"),
            pytest.param(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90 << 20))), id="endless text"),
            pytest.param(chunk(b"pHYs", b"x")[:-1] + b"!", id="broken checksum"),
        ],
    )
    def test_no_chunk_beside_the_pixels_decides(self, extra: bytes) -> None:
        data = encoded(grey(0))
        np.testing.assert_array_equal(read_image(data[:33] + extra + data[33:], "a", LIMITS)[0][..., 0], grey(0))

    @pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage!"])
    def test_broken_exif_in_a_jpeg_does_not_decide(self, block: bytes) -> None:
        data = encoded(Image.fromarray(grey(0)), "JPEG")
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        assert read_image(data[:2] + segment + data[2:], "a", LIMITS)[0].shape == (HEIGHT, WIDTH, 3)

    @pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
    def test_an_unused_fourth_channel_of_a_tiff_hides_nothing(self, kind: str) -> None:
        file, colours = io.BytesIO(), [grey(0)] * 3
        pixels = np.dstack([*colours, np.zeros_like(colours[0])])
        tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=[kind])
        np.testing.assert_array_equal(read_image(file.getvalue(), "a", LIMITS)[0], np.dstack(colours))

    def test_an_alpha_that_lets_almost_nothing_through_is_ignored(self) -> None:
        pixels = np.dstack([*[grey(0)] * 3, np.ones_like(grey(0))])
        image, notes = read_image(encoded(pixels), "a", LIMITS)
        np.testing.assert_array_equal(image[..., 0], grey(0))
        assert notes == ["alpha channel ignored, it would hide every pixel"]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_that_hides_everything_is_ignored(self, mode: str) -> None:
        image = Image.fromarray(grey(0)).convert(mode)
        image.putalpha(0)
        pixels, notes = read_image(encoded(image), "a", LIMITS)
        np.testing.assert_array_equal(pixels[..., 0], grey(0))
        assert "would hide every pixel" in notes[0]

    @pytest.mark.parametrize("orientation", [2, 3, 4])
    @pytest.mark.parametrize("drawn_on", ["stored", "turned"])
    def test_of_two_readings_of_the_orientation_the_one_on_the_defect_counts(
        self, orientation: int, drawn_on: str
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        images, masks = {}, {}
        for n in range(3):
            data = encoded(grey(n), exif=exif)
            turned = {2: lambda m: m[:, ::-1], 3: lambda m: m[::-1, ::-1], 4: lambda m: m[::-1]}[orientation]
            images[f"{n}.png"] = data
            masks[f"{n}.png"] = white(scratch(n) if drawn_on == "stored" else turned(scratch(n)).copy())
        pairs = read(images, masks)
        assert is_right(pairs)
        assert ("not applied" in pairs.notes[-1]) == (drawn_on == "stored")

    def test_one_mask_drawn_by_another_tool_decides_for_itself(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3
        images = {f"{n}.png": encoded(grey(n), exif=exif) for n in range(3)}
        pairs = read(images, {**MASKS, "2.png": white(scratch(2)[::-1, ::-1])})
        assert is_right(pairs)
        told = [note for note in pairs.notes if "EXIF" in note]
        assert len(told) == 2
        assert told[0].startswith("images 0.png and 1.png: EXIF orientation not applied")
        assert told[1] == "image 2.png: EXIF orientation applied"

    @pytest.mark.parametrize("control", [b"", bytes(8), struct.pack(">II", 1, 0), struct.pack(">II", 7, 0)])
    def test_a_chunk_that_announces_an_animation_does_not_make_one(self, control: bytes) -> None:
        data = PICTURES["0.png"]
        np.testing.assert_array_equal(
            read_image(data[:33] + chunk(b"acTL", control) + data[33:], "a", LIMITS)[0][..., 0], grey(0)
        )

    def test_previews_behind_the_picture_are_left_out(self) -> None:
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(grey(0))
            tiff.write(grey(0)[::4, ::4].copy(), subfiletype=1)
        image, notes = read_image(file.getvalue(), "a", LIMITS)
        np.testing.assert_array_equal(image[..., 0], grey(0))
        assert "contains several pictures, the first is used" in notes

    def test_a_raw_file_is_not_read_as_its_preview(self) -> None:
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(grey(0)[::4, ::4].copy(), subfiletype=1)
            tiff.write(grey(0))
        with pytest.raises(UsageError, match="image a begins with a preview"):
            read_image(file.getvalue(), "a", LIMITS)

    def test_a_mask_of_the_stored_size_tells_the_reading(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        pairs = read({f"{n}.png": encoded(grey(n), exif=exif) for n in range(3)})
        assert [pair.image.shape for pair in pairs.pairs] == [(HEIGHT, WIDTH, 3)] * 3
        assert is_right(pairs)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


class TestNames:
    @pytest.mark.parametrize(
        "suffix",
        [
            *("_mask", "_GT", "-gt", "_label", "_labels", "_mask_0", "_mask1", "_seg", "_segmentation", ".png"),
            *("_groundtruth", "_ground_truth", " mask", "_annotation", "_mask (1)", "_mask_00012", "_watershed_mask"),
            *("_binary", "_gtFine_labelIds", "-1", " (1)"),
        ],
    )
    def test_the_suffixes_of_tools_pair(self, suffix: str) -> None:
        assert is_right(read(PICTURES, {f"{n}{suffix}.png": white(scratch(n)) for n in range(3)}))

    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            *(("img{}_rgb", "img{}_mask"), ("{}_leftImg8bit", "{}_gtFine_labelIds"), ("image_{}", "mask_{}")),
            *(("image{}", "mask{}"), ("img_{}", "gt{}"), ("{}.2", "{}.2_mask"), ("{}_mask", "{}_mask_mask")),
        ],
    )
    def test_words_in_the_names_of_images_do_not_matter(self, image: str, mask: str) -> None:
        images = {f"{image.format(n)}.png": PICTURES[f"{n}.png"] for n in range(3)}
        assert is_right(read(images, {f"{mask.format(n)}.png": MASKS[f"{n}.png"] for n in range(3)}))

    @pytest.mark.parametrize(
        "suffixes",
        [
            *(("_mask_0", "_mask_1"), ("", "_mask"), ("_gt", "_label_2"), ("_0", "_1"), ("_1_mask", "_2_mask")),
            *((" (1)", " (2)"), ("_region_0", "_region_1"), ("_scratch_0", "_scratch_1"), ("_mask_a", "_mask_b")),
        ],
    )
    def test_several_masks_of_one_image_are_joined(self, suffixes: tuple[str, str]) -> None:
        masks = {}
        for n in range(3):
            masks[f"{n}{suffixes[0]}.png"] = white(scratch(n) & (np.arange(WIDTH) < 20))
            masks[f"{n}{suffixes[1]}.png"] = white(scratch(n) & (np.arange(WIDTH) >= 20))
        pairs = read(PICTURES, masks)
        for n, pair in enumerate(pairs.pairs):
            np.testing.assert_array_equal(pair.mask, scratch(n))
        assert any("joined, because they belong to the same image 0.png" in note for note in pairs.notes)

    def test_names_that_go_on_are_matched_only_if_all_are(self) -> None:
        brushed = [white(scratch(n)) for n in range(4)]
        masks = {f"{n}_brush.png": mask for n, mask in enumerate(brushed)}
        assert "4 masks without an image: 0_brush.png" in refused(PICTURES, masks)
        longer = {"0.png": PICTURES["0.png"], "0_1.png": PICTURES["1.png"]}
        masks = {"0_1_brush.png": brushed[1], "0_2_brush.png": brushed[0]}
        assert "2 masks without an image: 0_1_brush.png" in refused(longer, masks)

    def test_a_guessed_suffix_is_told_once_and_a_known_one_is_not(self) -> None:
        guessed = read(PICTURES, {f"{n}_scratch.png": white(scratch(n)) for n in range(3)})
        (told,) = [note for note in guessed.notes if "begins with" in note]
        assert told.startswith("masks 0_scratch.png, 1_scratch.png and 2_scratch.png: taken for the mask of the image")
        assert told.endswith("what follows is _scratch")
        known = read(PICTURES, {f"{n}_mask.png": white(scratch(n)) for n in range(3)})
        assert not [note for note in known.notes if "begins with" in note]

    def test_masks_named_after_several_kinds_of_defect_are_refused(self) -> None:
        masks = {f"{n}_{kind}.png": white(scratch(n)) for n in range(3) for kind in ("scratch", "dent")}
        assert "named after 2 kinds of defect, dent and scratch" in refused(PICTURES, masks)

    @pytest.mark.parametrize("tasks", [(7, 8, 9), (9, 10, 100)])
    def test_label_studio_s_masks_are_matched_in_the_order_of_tasks(self, tasks: tuple[int, int, int]) -> None:
        def named(order: tuple[int, ...]) -> dict[str, bytes]:
            return {
                f"task-{tasks[n]}-annotation-{n}-by-1-tag-scratch-0.png": white(scratch(place))
                for n, place in enumerate(order)
            }

        pairs = read(PICTURES, named((0, 1, 2)))
        assert is_right(pairs)
        assert any("matched in the order of Label Studio's tasks" in note for note in pairs.notes)
        assert "the pictures do not tell which belongs to which: rename them like 0_mask_0.png" in refused(
            PICTURES, named((1, 0, 2))
        )

    def test_an_empty_mask_beside_others_of_its_image_adds_nothing(self) -> None:
        empty = encoded(np.zeros((HEIGHT, WIDTH), np.uint8))
        masks = {f"{n}_mask_0.png": white(scratch(n)) for n in range(3)}
        pairs = read(PICTURES, masks | {"1_mask_1.png": empty})
        assert is_right(pairs)
        assert "mask 1_mask_1.png: empty, adds nothing to the others of its image" in pairs.notes
        assert "mask 1_mask_0.png is empty" in refused(PICTURES, masks | {"1_mask_0.png": empty})

    def test_a_picture_is_never_its_own_mask(self, tmp_path: Path) -> None:
        assert "a picture cannot be its own mask" in refused(MASKS, MASKS)
        folder = put(tmp_path, PICTURES)
        assert "a picture cannot be its own mask" in refused(folder, folder)

    @pytest.mark.parametrize("suffix", ["_GT.png", "_label.bmp", "_mask.png"])
    def test_images_and_masks_in_one_folder(self, suffix: str, tmp_path: Path) -> None:
        masks = {f"{n}{suffix}": white(scratch(n)) for n in range(3)}
        good = {"7.png": encoded(grey(7)), f"7{suffix}": encoded(np.zeros((HEIGHT, WIDTH), np.uint8))}
        folder = put(tmp_path, {**PICTURES, **masks, **good})
        pairs = read_pairs(folder, folder, LIMITS)
        assert [pair.name for pair in pairs.pairs] == ["0", "1", "2"]
        assert is_right(pairs)
        assert any("image 7.png: left out because its mask is empty" in note for note in pairs.notes)

    @pytest.mark.parametrize(
        ("image", "mask", "given"),
        [
            ("test/crack/{}.png", "ground_truth/crack/{}_mask.png", ("", "")),
            ("test/crack/{}.png", "ground_truth/crack/{}_mask.png", ("test", "ground_truth")),
            ("Data/Images/Anomaly/{}.JPG", "Data/Masks/Anomaly/{}.png", ("", "")),
            ("Data/Images/Anomaly/{}.JPG", "Data/Masks/Anomaly/{}.png", ("Data/Images", "Data/Masks")),
            ("kos0{}/Part5.jpg", "kos0{}/Part5_label.bmp", ("", "")),
            ("train/2000{}.png", "train/2000{}_GT.png", ("", "")),
            ("test_public/bad/{}_regular.png", "test_public/ground_truth/bad/{}_regular_mask.png", ("", "")),
            ("test/bad/{}.png", "ground_truth/bad/{}/000.png", ("", "")),
            ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", ("", "")),
            ("img/{}.jpg", "masks_machine/{}.jpg.png", ("", "")),
            ("train/{}_png.rf.5e.jpg", "train/{}_png.rf.5e_mask.png", ("", "")),
            ("parts/{}/image.png", "parts/{}/mask.png", ("parts", "parts")),
            ("images/scratch/{}.png", "masks/scratch/{}.png", ("images", "masks")),
            ("images/{}.png", "masks/scratch/{}.png", ("images", "masks")),
        ],
    )
    def test_public_layouts_are_read_as_they_are(
        self, image: str, mask: str, given: tuple[str, str], tmp_path: Path
    ) -> None:
        put(tmp_path, {image.format(n): encoded(grey(n)) for n in range(3)})
        put(tmp_path, {mask.format(n): white(scratch(n)) for n in range(3)})
        if "test" in image:
            put(tmp_path, {"test/good/0.png": encoded(grey(8)), "train/good/1.png": encoded(grey(9))})
            assert read_normals(tmp_path, LIMITS).images[0].name == "1"
        pairs = read_pairs(tmp_path / given[0], tmp_path / given[1], LIMITS)
        assert len(pairs.pairs) == 3
        assert is_right(pairs)

    def test_what_tests_does_not_train(self, tmp_path: Path) -> None:
        for split, numbers in (("train", (0, 1)), ("test", (2, 3))):
            put(tmp_path / split, {f"{n}.png": encoded(grey(n)) for n in numbers})
            put(tmp_path / split, {f"{n}_GT.png": white(scratch(n)) for n in numbers})
        pairs = read_pairs(tmp_path, tmp_path, LIMITS)
        assert [pair.name for pair in pairs.pairs] == ["0", "1"]
        assert any("the pictures in train are used" in note for note in pairs.notes)

    def test_pictures_in_other_folders_are_said_to_be_there(self, tmp_path: Path) -> None:
        put(tmp_path, {"test/good/0.png": encoded(grey(8)), "test/crack/0.png": encoded(grey(0)), "a.txt": b"x"})
        with pytest.raises(UsageError) as caught:
            read_normals(tmp_path, LIMITS)
        assert (
            "the folder of normals contains no pictures, but test/crack and test/good inside it do: give one of these"
            in caught.value.problems
        )
        assert "left out of the normals: a.txt (not an image)" in caught.value.problems

    def test_what_was_left_out_is_named_whatever_is_wrong(self, tmp_path: Path) -> None:
        images, masks = (
            put(tmp_path / "i", {**PICTURES, "0.png": b"", "._0.png": b"x"}),
            put(tmp_path / "m", {**MASKS, "a.json": b"{}"}),
        )
        (images / "gone").symlink_to("/gone/away")
        told = refused(images, masks)
        assert "left out of the images: ._0.png (a hidden or system file)" in told
        assert "left out of the images: gone (a link to /gone/away, which does not exist)" in told
        assert "left out of the masks: a.json (not an image but an annotation" in told

    def test_several_kinds_of_defect_are_named(self, tmp_path: Path) -> None:
        for kind in ("crack", "hole"):
            put(tmp_path / "test" / kind, PICTURES)
            put(tmp_path / "ground_truth" / kind, MASKS)
        assert "2 kinds of defect, crack and hole" in refused(tmp_path, tmp_path)

    def test_names_that_are_no_utf8_are_shown_by_their_bytes(self, tmp_path: Path) -> None:
        for kind, files in (("images", PICTURES), ("masks", MASKS)):
            (tmp_path / kind).mkdir()
            for name, data in files.items():
                place = os.fsencode(tmp_path / kind) + "/裂".encode("gbk") + name.encode()
                with open(place, "wb") as file:  # noqa: PTH123 - a name of bytes
                    file.write(data)
        pairs = read_pairs(tmp_path / "images", tmp_path / "masks", LIMITS)
        assert [pair.name for pair in pairs.pairs] == ["%C1%D10", "%C1%D11", "%C1%D12"]

    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("\ufeff{}.png", "{}.png"),
            ("{} .png", "{}.png"),
            ("a\u00a0{}.png", "a {}_mask.png"),
            ("\uff11{}.png", "1{}.png"),
            ("A\u0308{}.ome.tif", "\u00e4{}_MASK.png"),
        ],
    )
    def test_names_that_look_alike_are_alike(self, image: str, mask: str) -> None:
        images = {image.format(n): PICTURES[f"{n}.png"] for n in range(3)}
        assert is_right(read(images, {mask.format(n): MASKS[f"{n}.png"] for n in range(3)}))

    def test_control_characters_in_names_reach_no_message(self, tmp_path: Path) -> None:
        images = put(tmp_path / "i", {f"a\n\x1b[31m{n}.png": PICTURES[f"{n}.png"] for n in range(3)})
        masks = put(tmp_path / "m", {f"a\n\x1b[31m{n}.png": MASKS[f"{n}.png"] for n in range(3)})
        pairs = read_pairs(images, masks, LIMITS)
        assert [pair.name for pair in pairs.pairs] == ["a%0A%1B[31m0", "a%0A%1B[31m1", "a%0A%1B[31m2"]
        assert all(note.isprintable() for note in pairs.notes)

    def test_links_that_lead_to_themselves_and_pipes_are_left_out_or_refused(self, tmp_path: Path) -> None:
        images, masks = put(tmp_path / "i", PICTURES), put(tmp_path / "m", MASKS)
        (images / "again").symlink_to(".")
        (images / "loop").symlink_to("loop")
        os.mkfifo(images / "pipe.png")
        notes = read_pairs(images, masks, LIMITS).notes
        assert "folder again: left out of the images: subfolders are not searched" in notes
        assert "file loop: left out of the images: a link to loop, which does not exist" in notes
        assert "file pipe.png: left out of the images: not an image" in notes
        (images / "loop.png").symlink_to("loop.png")
        assert "image loop.png is a link to loop.png, which does not exist" in refused(images, masks)

    def test_links_and_pointers_are_said_to_be_such(self, tmp_path: Path) -> None:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        images, masks = put(tmp_path / "i", {**PICTURES, "2.png": pointer}), put(tmp_path / "m", MASKS)
        (images / "1.png").unlink()
        (images / "1.png").symlink_to("/gone/away.png")
        told = refused(images, masks)
        assert "image 1.png is a link to /gone/away.png, which does not exist" in told
        assert "image 2.png is a Git LFS pointer" in told

    @pytest.mark.parametrize(
        ("ending", "told"), [("json", "an annotation"), ("txt", "an annotation"), ("npy", "array")]
    )
    def test_what_lies_in_place_of_masks_is_named(self, ending: str, told: str, tmp_path: Path) -> None:
        images = put(tmp_path / "i", PICTURES)
        masks = put(tmp_path / "m", {f"{n}.{ending}": b"[]" for n in range(3)})
        said = refused(images, masks)
        assert f"left out of the masks: 0.{ending}, 1.{ending} and 2.{ending}" in said
        assert told in said


def test_a_long_strip_is_read() -> None:
    assert read_image(encoded(np.zeros((20_000, 500), np.uint8)), "a", LIMITS)[0].shape == (20_000, 500, 3)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "an HEIC photograph: save it as PNG or JPEG"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF image"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a camera's raw file"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\3\4", "an archive: unpack it"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"\x93NUMPY\1\0", "an array"),
        (b"<?xml version='1.0'?>\n<svg width='9'/>", "a drawing (SVG)"),
        (b"<!DOCTYPE html><title>404", "a web page"),
        (b'\xef\xbb\xbf{"shapes": []}', "an annotation"),
        (b"../.git/annex/objects/x/y", "is a git-annex pointer"),
        (b"md5: 0\nouts:\n", "is a DVC pointer"),
        (b"../store/000.png\n", "is a link, not the picture"),
        (b"L\0\0\0\1\x14\2\0", "is a shortcut"),
        (b"anything", "is not a PNG, JPEG, BMP, TIFF or WebP image (it begins with b'anything')"),
    ],
)
def test_a_file_that_is_no_picture_is_said_to_be_what_it_is(data: bytes, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_image(data, "a", LIMITS)
    assert f"{told}" in str(caught.value)
