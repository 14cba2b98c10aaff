"""Real files, good and bad, as users send them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.images import ImageArray, ImageLimits, MaskArray, read_image, read_mask
from service.core.uploads.pairs import PairSet, read_normals, read_pairs
from service.core.uploads.problems import UnusableFilesError

LIMITS = ImageLimits()
WIDTH, HEIGHT = 24, 16


def pixels(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spot(width: int = WIDTH, height: int = HEIGHT) -> MaskArray:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[3:7, 5:11] = True
    return mask


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int = 0) -> bytes:
    return encoded(Image.fromarray(pixels(seed)))


def mask_png(mask: MaskArray | None = None, white: int = 255) -> bytes:
    mask = spot() if mask is None else mask
    return encoded(Image.fromarray(np.where(mask, np.uint8(white), np.uint8(0))))


def claiming(width: int, height: int) -> bytes:
    """A PNG of some dozen bytes whose header claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(UsageError) as caught:
        read_image(data, "a.png", limits)
    (problem,) = caught.value.problems
    assert problem.startswith("image a.png ")
    return problem


class TestImages:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
    def test_lossless_formats_keep_every_pixel(self, tmp_path: Path, kind: str) -> None:
        data = encoded(Image.fromarray(pixels()), kind, lossless=True)
        file = tmp_path / "called.jpg"
        file.write_bytes(data)
        for source in (file, data, io.BytesIO(data)):
            image, notes = read_image(source, "a", LIMITS)
            np.testing.assert_array_equal(image, pixels())
            assert notes == []

    def test_jpeg_is_read(self) -> None:
        image, notes = read_image(encoded(Image.new("RGB", (WIDTH, HEIGHT), (200, 40, 90)), "JPEG"), "a", LIMITS)
        assert np.abs(image.astype(int) - (200, 40, 90)).max() <= 4
        assert notes == []

    def test_the_array_may_be_written_to(self) -> None:
        assert read_image(png(), "a", LIMITS)[0].flags.writeable
        assert read_mask(mask_png(), "a", LIMITS)[0].flags.writeable

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image, notes = read_image(encoded(Image.fromarray(pixels()), exif=exif), "a", LIMITS)
        seen = {
            1: lambda p: p,
            2: lambda p: p[:, ::-1],
            3: lambda p: p[::-1, ::-1],
            4: lambda p: p[::-1],
            5: lambda p: p.transpose(1, 0, 2),
            6: lambda p: np.rot90(p, -1),
            7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
            8: np.rot90,
        }[orientation](pixels())
        np.testing.assert_array_equal(image, seen)
        assert bool(notes) == (orientation != 1)

    @pytest.mark.parametrize(
        ("image", "expected", "note"),
        [
            pytest.param(Image.new("L", (9, 9), 77), (77, 77, 77), "grey, repeated to RGB", id="grey"),
            pytest.param(Image.new("1", (9, 9), 1), (255, 255, 255), "black and white", id="one bit"),
            pytest.param(Image.new("RGB", (9, 9), (9, 99, 199)).quantize(4), (9, 99, 199), "palette", id="palette"),
            pytest.param(Image.new("RGBA", (9, 9), (9, 99, 199, 255)), (9, 99, 199), "opaque alpha", id="opaque"),
            pytest.param(Image.new("RGBA", (9, 9), (9, 99, 199, 0)), (9, 99, 199), "would hide", id="hidden"),
            pytest.param(Image.new("LA", (9, 9), (50, 255)), (50, 50, 50), "opaque alpha", id="grey and alpha"),
            pytest.param(
                Image.fromarray(np.full((9, 9), 40000, np.uint16)), (156, 156, 156), "16-bit grey", id="16 bits"
            ),
            pytest.param(
                Image.fromarray(np.full((9, 9), 4000, np.uint16)), (250, 250, 250), "12-bit grey", id="12 bits in 16"
            ),
        ],
    )
    def test_other_kinds_of_pixels_are_converted_and_the_note_says_how(
        self, image: Image.Image, expected: tuple[int, int, int], note: str
    ) -> None:
        array, notes = read_image(encoded(image), "a", LIMITS)
        assert array.shape == (9, 9, 3)
        assert array.dtype == np.uint8
        assert (array == expected).all()
        assert len(notes) == 1
        assert note in notes[0]

    def test_cmyk_is_converted(self) -> None:
        array, notes = read_image(encoded(Image.new("CMYK", (9, 9), (255, 0, 255, 0)), "TIFF"), "a", LIMITS)
        assert (array == (0, 255, 0)).all()
        assert notes == ["CMYK, converted to RGB"]

    def test_sixteen_bits_per_channel_are_scaled(self) -> None:
        body = zlib.compress(b"".join(b"\0" + struct.pack(">3H", 0x1234, 0x5678, 0x9ABC) * 8 for _ in range(8)))
        data = claiming(8, 8)
        start = data.index(b"IHDR") - 4
        header = b"IHDR" + struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
        idat = b"IDAT" + body
        data = b"".join(
            [
                data[:start],
                struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)),
                struct.pack(">I", len(body)) + idat + struct.pack(">I", zlib.crc32(idat)),
                data[-12:],
            ]
        )
        array, notes = read_image(data, "a", LIMITS)
        assert (array == (0x12, 0x56, 0x9A)).all()
        assert notes[0].startswith("16 bits per channel, 0..65535 scaled to 8 bits")

    def test_what_follows_the_image_stays_behind(self) -> None:
        for data in (png(), encoded(Image.fromarray(pixels()), "BMP")):
            polyglot = data + b"PK\x03\x04<script>alert(1)</script>"
            np.testing.assert_array_equal(read_image(polyglot, "a", LIMITS)[0], pixels())

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            pytest.param(b"", "empty file", id="nothing"),
            pytest.param(b"GIF89a" + bytes(50), "not a PNG, JPEG, BMP, TIFF or WebP", id="gif"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG", id="svg"),
            pytest.param(b"a text that was renamed", "not a PNG", id="text"),
            pytest.param(png()[:-40], "truncated or broken", id="truncated png"),
            pytest.param(encoded(Image.fromarray(pixels()), "JPEG")[:-100], "truncated or broken", id="truncated jpeg"),
            pytest.param(encoded(Image.fromarray(pixels()), "WEBP")[:-20], "broken", id="truncated webp"),
            pytest.param(encoded(Image.fromarray(pixels()), "TIFF")[:-200], "broken", id="truncated tiff"),
            pytest.param(b"\x89PNG\r\n\x1a\n", "broken header", id="signature only"),
            pytest.param(claiming(30000, 30000), "too large", id="bomb"),
            pytest.param(
                claiming(9000, 9000), "9000×9000 = 81.0 megapixels: at most 16.8; cut it into pieces", id="half a bomb"
            ),
            pytest.param(claiming(0, 100), "broken", id="no width"),
            pytest.param(encoded(Image.new("RGB", (7, 80))), "7×80 pixels: at least 8", id="sliver"),
            pytest.param(encoded(Image.new("F", (9, 9)), "TIFF"), "floating-point", id="float"),
            pytest.param(
                encoded(Image.fromarray(np.full((9, 9), 70000, np.int32)), "TIFF"), "70000", id="more than 16 bits"
            ),
        ],
    )
    def test_refused_with_the_reason(self, data: bytes, why: str) -> None:
        assert why in refusal(data)

    @pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
    def test_several_frames_are_refused(self, kind: str) -> None:
        frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "animated or has several pages" in refusal(data)

    def test_animated_gif_is_refused(self) -> None:
        frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
        assert "not a PNG" in refusal(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    @pytest.mark.parametrize("chunk", [b"VP8X", b"VP8L", b"VP8 "])
    def test_a_huge_webp_is_refused_by_its_header(self, chunk: bytes) -> None:
        body = {
            b"VP8X": struct.pack("<I", 0) + (16382).to_bytes(3, "little") * 2,
            b"VP8L": b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + bytes(5),
            b"VP8 ": b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383),
        }[chunk]
        data = b"RIFF" + struct.pack("<I", 22) + b"WEBP" + chunk + struct.pack("<I", 10) + body
        assert "16383×16383 = 268.4 megapixels" in refusal(data)

    def test_a_bomb_costs_no_memory_and_leaves_pillow_as_it_was(self) -> None:
        before = Image.MAX_IMAGE_PIXELS
        tracemalloc.start()
        refusal(claiming(9000, 9000))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        assert before == Image.MAX_IMAGE_PIXELS

    def test_limits_are_those_given(self) -> None:
        assert "larger than 0.0001 MB" in refusal(png(), ImageLimits(max_file_bytes=100))
        assert "24×16 pixels: at most 20 per side" in refusal(png(), ImageLimits(max_side=20))
        assert "megapixels" in refusal(png(), ImageLimits(max_pixels=300))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"image gone\.png cannot be read: No such file"):
            read_image(tmp_path / "gone.png", "gone.png", LIMITS)

    @settings(max_examples=100)
    @given(data=st.binary(max_size=200), head=st.sampled_from([b"", png()[:40], b"\xff\xd8\xff", b"BM", b"II*\x00"]))
    def test_arbitrary_bytes_are_read_or_refused(self, data: bytes, head: bytes) -> None:
        read_or_refuse(head + data)

    @settings(max_examples=150)
    @given(
        data=st.sampled_from(
            [
                png(),
                mask_png(),
                encoded(Image.fromarray(pixels()).quantize(5), transparency=2),
                *(encoded(Image.fromarray(pixels()), kind) for kind in ("JPEG", "BMP", "TIFF", "WEBP")),
            ]
        ),
        edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
        cut=st.floats(0.5, 1),
    )
    def test_damaged_files_are_read_or_refused(self, data: bytes, edits: list[tuple[float, bytes]], cut: float) -> None:
        damaged = bytearray(data)
        for place, change in edits:
            # Most of what parsers trip over stands in the first bytes.
            start = int(place**3 * len(damaged))
            damaged[start : start + len(change)] = change
        read_or_refuse(repaired(bytes(damaged[: int(cut * len(damaged)) + 1])))


def repaired(data: bytes) -> bytes:
    """The same with right checksums where it is a PNG, so that damage gets past them."""
    if not data.startswith(b"\x89PNG"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


def read_or_refuse(data: bytes) -> None:
    try:
        image, _ = read_image(data, "a", LIMITS)
    except UsageError as error:
        assert error.problems  # noqa: PT017
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
    try:
        mask, _ = read_mask(data, "a", LIMITS)
    except UsageError as error:
        assert error.problems  # noqa: PT017
    else:
        assert mask.dtype == np.bool_
        assert 0 < mask.mean() < 1


def painted(mask: MaskArray, colour: tuple[int, ...], background: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(mask[..., None], colour, background).astype(np.uint8))


def palette_mask() -> Image.Image:
    image = Image.fromarray(spot().astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


class TestMasks:
    @pytest.mark.parametrize(
        ("image", "note"),
        [
            pytest.param(Image.fromarray(spot()), "", id="one bit"),
            pytest.param(Image.fromarray(spot() * np.uint8(255)), "", id="0 and 255"),
            pytest.param(Image.fromarray(spot() * np.uint8(1)), "", id="0 and 1"),
            pytest.param(Image.fromarray(spot() * np.uint16(1)), "", id="0 and 1 in 16 bits"),
            pytest.param(Image.fromarray(spot() * np.uint16(65535)), "16-bit", id="16 bits"),
            pytest.param(Image.fromarray(spot() * np.uint8(3)), "the values 0 and 3", id="0 and 3"),
            pytest.param(painted(spot(), (255, 255, 255), (0, 0, 0)), "", id="RGB"),
            pytest.param(painted(spot(), (255, 0, 0), (0, 0, 0)), "coloured, the defect is #ff0000", id="red"),
            pytest.param(palette_mask(), "coloured, the defect is #800000", id="palette"),
            pytest.param(painted(spot(), (255, 255, 255, 255), (0, 0, 0, 255)), "", id="opaque"),
            pytest.param(painted(spot(), (0, 0, 0, 255), (0, 0, 0, 0)), "transparent layer", id="black on a layer"),
            pytest.param(painted(spot(), (255, 0, 0, 255), (0, 0, 0, 0)), "transparent layer", id="red on a layer"),
        ],
    )
    def test_two_levels_are_a_mask(self, image: Image.Image, note: str) -> None:
        mask, notes = read_mask(encoded(image), "a", LIMITS)
        np.testing.assert_array_equal(mask, spot())
        assert note in "; ".join(notes)
        assert bool(notes) == bool(note)

    def test_more_levels_are_thresholded_at_half_and_the_note_says_so(self) -> None:
        levels = spot() * np.uint8(255)
        levels[2, 4:8] = (1, 90, 127, 128)
        mask, notes = read_mask(encoded(Image.fromarray(levels)), "a", LIMITS)
        expected = spot()
        expected[2, 7] = True
        np.testing.assert_array_equal(mask, expected)
        assert notes == ["not binary (values 0..255, 6 levels): thresholded at 128"]

    def test_a_mask_saved_as_jpeg_comes_back(self) -> None:
        large = np.roll(np.kron(spot(), np.ones((8, 8))).astype(np.bool_), 3, axis=(0, 1))
        mask, notes = read_mask(encoded(Image.fromarray(large).convert("RGB"), "JPEG"), "a", LIMITS)
        assert (mask != large).mean() < 0.005
        assert "thresholded at 128" in notes[0]

    def test_a_photograph_instead_of_a_mask_is_pointed_out(self) -> None:
        photograph = np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH)
        assert "is it a photograph?" in read_mask(encoded(Image.fromarray(photograph)), "a", LIMITS)[1][1]

    def test_mostly_white_is_pointed_out(self) -> None:
        mask, notes = read_mask(mask_png(~spot()), "a", LIMITS)
        assert mask.sum() == (~spot()).sum()
        assert notes == ["white covers 94% of it; if black is the defect, invert the mask"]

    @pytest.mark.parametrize(
        ("image", "why"),
        [
            pytest.param(Image.new("L", (9, 9), 0), "mask a is empty", id="empty"),
            pytest.param(Image.new("L", (9, 9), 255), "mask a is full", id="full"),
            pytest.param(Image.fromarray(pixels()), "colours, so it is unclear", id="photograph"),
            pytest.param(
                painted(spot(), (0, 0, 255), (255, 0, 0)), "choose with --mask-values #0000ff", id="blue on red"
            ),
            pytest.param(
                Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9) % 4),
                "several classes: 1 (in 1 of 1), 2",
                id="classes",
            ),
            pytest.param(Image.fromarray(200 + spot() * np.uint8(55)), "values 200 and 255", id="two light levels"),
            pytest.param(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "empty", id="nothing painted"),
        ],
    )
    def test_refused_with_the_reason(self, image: Image.Image, why: str) -> None:
        with pytest.raises(UsageError) as caught:
            read_mask(encoded(image), "a", LIMITS)
        assert why in str(caught.value)


def folders(tmp_path: Path, images: dict[str, bytes], masks: dict[str, bytes]) -> tuple[Path, Path]:
    for kind, files in (("images", images), ("masks", masks)):
        (tmp_path / kind).mkdir()
        for name, data in files.items():
            (tmp_path / kind / name).write_bytes(data)
    return tmp_path / "images", tmp_path / "masks"


def problems_of(images: dict[str, bytes], masks: dict[str, bytes], limits: ImageLimits = LIMITS) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read_pairs(images, masks, limits)
    return caught.value.problems


def names(pairs: PairSet) -> list[str]:
    return [pair.name for pair in pairs.pairs]


THREE = {f"{number:03}.png": png(number) for number in range(3)}
THREE_MASKS = dict.fromkeys(THREE, mask_png())


class TestPairs:
    def test_folders_and_uploads_are_read_alike(self, tmp_path: Path) -> None:
        for pairs in (
            read_pairs(THREE, THREE_MASKS, LIMITS),
            read_pairs(*folders(tmp_path, THREE, THREE_MASKS), LIMITS),
        ):
            assert names(pairs) == ["000", "001", "002"]
            assert pairs.notes == []
            for number, pair in enumerate(pairs.pairs):
                np.testing.assert_array_equal(pair.image, pixels(number))
                np.testing.assert_array_equal(pair.mask, spot())

    @pytest.mark.parametrize(
        "mask_name", ["{}.png", "{}_mask.png", "{}-mask.tif", "{}_gt.bmp", "{}_MASK.PNG", "folder\\{}_mask.png"]
    )
    def test_masks_are_found_by_stem_suffix_and_whatever_case(self, mask_name: str) -> None:
        images = {f"Part {letter}.JPG": png(seed) for seed, letter in enumerate("AB")}
        masks = {mask_name.format(f"part {letter}"): mask_png() for letter in "aB"}
        assert names(read_pairs(images, masks, LIMITS)) == ["Part A", "Part B"]

    def test_accents_match_however_they_are_written(self) -> None:
        images = {"é.png": png(0), "b.png": png(1)}
        assert len(read_pairs(images, {"e\u0301.png": mask_png(), "b.png": mask_png()}, LIMITS).pairs) == 2

    def test_an_image_whose_own_name_ends_in_mask(self) -> None:
        images = {"a.png": png(0), "a_mask.png": png(1)}
        masks = {"a_mask.png": mask_png(), "a_mask_mask.png": mask_png()}
        assert any("without a mask: a.png" in problem for problem in problems_of(images, masks))
        masks = {"a.png": mask_png(), "a_mask.png": mask_png()}
        assert names(read_pairs(images, masks, LIMITS)) == ["a", "a_mask"]

    def test_what_is_no_picture_is_left_out_of_folders_and_told(self, tmp_path: Path) -> None:
        clutter = {".DS_Store": b"x", "Thumbs.db": b"x", "._000.png": b"x", "notes.txt": b"hello"}
        images, masks = folders(tmp_path, {**THREE, **clutter}, THREE_MASKS)
        (images / "old").mkdir()
        pairs = read_pairs(images, masks, LIMITS)
        assert names(pairs) == ["000", "001", "002"]
        assert pairs.notes == [
            "files .DS_Store, ._000.png and Thumbs.db: left out of the images: a hidden or system file",
            "file notes.txt: left out of the images: not an image",
            "folder old: left out of the images: subfolders are not searched",
        ]

    def test_a_picture_without_a_suffix_counts(self, tmp_path: Path) -> None:
        images, masks = folders(tmp_path, {"000": png(0), "001": png(1)}, {"000": mask_png(), "001": mask_png()})
        assert names(read_pairs(images, masks, LIMITS)) == ["000", "001"]

    def test_conversions_are_told_once_for_all_files(self) -> None:
        grey = {f"{n:02}.png": encoded(Image.fromarray(pixels(n)[..., 0])) for n in range(9)}
        pairs = read_pairs(grey, {**dict.fromkeys(grey, mask_png()), "00.png": mask_png(white=9)}, LIMITS)
        assert pairs.notes == [
            "images 00.png, 01.png, 02.png, 03.png, 04.png and 4 more: grey, repeated to RGB",
            "mask 00.png: has the values 0 and 9, 9 used as defect",
        ]

    @pytest.mark.parametrize(
        ("images", "masks", "told"),
        [
            pytest.param({}, {}, ["0 pairs of image and mask: at least 2"], id="nothing"),
            pytest.param(
                {"a.png": png()}, {"a.png": mask_png()}, ["1 pair of image and mask: at least 2 are needed, 3 to 10"]
            ),
            pytest.param(
                {**THREE, "x.png": png(7)},
                THREE_MASKS,
                ["1 image without a mask: x.png; the mask of x.png"],
                id="image",
            ),
            pytest.param(
                THREE, {**THREE_MASKS, "y_gt.png": mask_png()}, ["1 mask without an image: y_gt.png"], id="mask"
            ),
            pytest.param(
                {**THREE, "000.JPG": png(7)},
                THREE_MASKS,
                ["images 000.JPG and 000.png have the same name '000'"],
                id="stem",
            ),
            pytest.param(
                {**THREE, "002.png": encoded(Image.fromarray(pixels(0)), "BMP")},
                THREE_MASKS,
                ["images 000.png and 002.png are the same picture"],
                id="same pixels",
            ),
            pytest.param(
                THREE,
                {**THREE_MASKS, "001.png": mask_png(spot(30, 20))},
                ["image 001.png is 24×16 pixels, but mask 001.png is 30×20"],
                id="sizes",
            ),
            pytest.param(
                THREE,
                {**THREE_MASKS, "001.png": mask_png(spot(HEIGHT, WIDTH))},
                ["image 001.png is 24×16 pixels, but mask 001.png is 16×24: one of them is rotated"],
                id="turned",
            ),
            pytest.param(
                {**THREE, "001.png": b"no image"},
                {**THREE_MASKS, "002.png": mask_png(~spot() | spot()), "x.png": b""},
                [
                    *("1 mask without an image", "image 001.png is not a PNG", "mask 002.png is full"),
                    "mask x.png is an empty file",
                ],
                id="all at once",
            ),
        ],
    )
    def test_every_problem_is_told(self, images: dict[str, bytes], masks: dict[str, bytes], told: list[str]) -> None:
        problems = problems_of(images, masks)
        assert len(problems) == len(told), problems
        for problem, start in zip(problems, told, strict=True):
            assert problem.startswith(start)

    @pytest.mark.parametrize("pairing", ["unpaired", "of one stem", "masks of one image"])
    def test_what_cannot_be_paired_is_looked_at_too(self, pairing: str) -> None:
        images, masks = {
            "unpaired": ({**THREE, "x.png": b"text"}, {**THREE_MASKS, "y.png": b"text"}),
            "of one stem": ({**THREE, "002.tif": b"text"}, {**THREE_MASKS, "002.tif": b"text"}),
            "masks of one image": (THREE, {**THREE_MASKS, "000_mask.png": b"text"}),
        }[pairing]
        broken = {name for files in (images, masks) for name, content in files.items() if content == b"text"}
        with pytest.raises(UnusableFilesError) as caught:
            read_pairs(images, masks, LIMITS)
        unreadable = [problem for problem in caught.value.found if "is not a PNG" in problem.detail]
        assert {name for problem in unreadable for _, name in problem.files} == broken

    def test_many_files_are_all_named_and_only_the_sentence_is_abridged(self) -> None:
        images, masks = ({f"{kind}{number:02}.png": png(number) for number in range(9)} for kind in "im")
        with pytest.raises(UnusableFilesError) as caught:
            read_pairs(images, dict.fromkeys(masks, mask_png()), LIMITS)
        lonely = [problem for problem in caught.value.found if problem.files]
        assert [problem.files for problem in lonely] == [
            tuple((Upload.IMAGES, name) for name in images),
            tuple((Upload.MASKS, name) for name in masks),
        ]
        assert all(name in lonely[0].detail for name in images)
        assert "i04.png and 4 more;" in lonely[0].brief

    def test_a_mistake_belongs_to_its_file_whatever_others_are_called(self) -> None:
        images = {"a.png": png(0), "image a.png": b"text", "b.png": png(1)}
        with pytest.raises(UnusableFilesError) as caught:
            read_pairs(images, dict.fromkeys(images, mask_png()), LIMITS)
        (problem,) = caught.value.found
        assert problem.files == ((Upload.IMAGES, "image a.png"),)

    def test_too_many_pairs_are_counted_and_only_as_many_as_allowed_are_looked_at(self) -> None:
        broken_behind = {**THREE, "002.png": b"no image"}
        (problem,) = problems_of(broken_behind, THREE_MASKS, ImageLimits(max_pairs=2))
        assert problem.startswith("3 pairs of image and mask: at most 2 are accepted")

    def test_the_pixels_of_all_images_together_are_limited(self) -> None:
        (problem,) = problems_of(THREE, THREE_MASKS, ImageLimits(max_total_pixels=2 * WIDTH * HEIGHT))
        assert "megapixels together" in problem
        assert read_pairs(THREE, THREE_MASKS, ImageLimits(max_total_pixels=3 * WIDTH * HEIGHT)).pairs

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        images, _ = folders(tmp_path, THREE, {})
        with pytest.raises(UsageError, match=r"the folder of masks .*/nowhere cannot be read: No such file"):
            read_pairs(images, tmp_path / "nowhere", LIMITS)

    def test_a_picture_in_a_format_that_is_not_read_is_a_problem_not_clutter(self, tmp_path: Path) -> None:
        folder = folders(tmp_path, {**THREE, "003.heic": b"\0\0\0\x18ftypheic"}, {**THREE_MASKS, "003.png": mask_png()})
        with pytest.raises(UsageError, match=r"image 003\.heic is not a PNG"):
            read_pairs(*folder, LIMITS)

    def test_nothing_is_held_of_a_set_that_is_refused(self) -> None:
        side = 256
        images = {f"{n}.png": encoded(Image.new("RGB", (side, side), (n, n, n))) for n in range(24)}
        masks = dict.fromkeys(images, mask_png(spot(side, side)))
        tracemalloc.start()
        problems_of({**images, "0.png": b"no image"}, masks)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * 3 * side * side


class TestNormals:
    def test_images_are_read_by_name_and_clutter_is_left_out(self, tmp_path: Path) -> None:
        folder, _ = folders(tmp_path, {"b.png": png(1), "a.png": png(0), "readme.md": b"#"}, {})
        normals = read_normals(folder, LIMITS)
        assert [normal.name for normal in normals.images] == ["a", "b"]
        np.testing.assert_array_equal(normals.images[1].image, pixels(1))
        assert normals.notes == ["file readme.md: left out of the normals: not an image"]

    def test_what_was_converted_is_noted(self) -> None:
        deep = encoded(Image.fromarray(np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)))
        (note,) = read_normals({"a.png": png(), "deep.png": deep}, LIMITS).notes
        assert note.startswith("normal image deep.png: ")

    def test_uploads_that_do_not_count_are_named_where_there_are_no_others(self) -> None:
        with pytest.raises(UnusableFilesError) as caught:
            read_normals({".hidden.png": png()}, LIMITS)
        assert [problem.files for problem in caught.value.found] == [(), ((Upload.NORMALS, ".hidden.png"),)]

    def test_no_images_is_a_problem(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least 1 is needed"):
            read_normals(tmp_path, LIMITS)

    def test_every_problem_is_told(self) -> None:
        with pytest.raises(UsageError) as caught:
            read_normals({"a.png": b"x", "b.png": png(), "c.png": claiming(9000, 9000)}, LIMITS)
        assert len(caught.value.problems) == 2
