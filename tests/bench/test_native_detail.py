"""How sharp enlarged defects are: what is measured, and that a run ends with a line for each surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bench.native_detail import RENDERED, Shown, main, measured
from model.types import ImageArray, Pair


def shown() -> list[Shown]:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 60), np.bool_)
    mask[15:45, 15:45] = True
    images = [rng.integers(60, 200, (60, 60, 3), dtype=np.uint8) for _ in range(2)]
    return [Shown(Pair("real", image, mask), image) for image in images]


def smooth_inside(pair: Pair) -> ImageArray:
    return np.where(pair.mask[..., None], ndimage.gaussian_filter(pair.image, (1.5, 1.5, 0)), pair.image)


def test_real_defects_have_one_and_blurred_ones_less_and_coarse_bands_lose_least() -> None:
    pairs = shown()
    real = measured([each.real.image for each in pairs], pairs)
    assert real.detail == pytest.approx(1)
    assert [real.gradient, *real.bands] == pytest.approx([1] * 5)
    blurred = measured([smooth_inside(each.real) for each in pairs], pairs)
    assert blurred.detail < 0.5
    assert blurred.gradient < 0.5
    assert blurred.bands[0] < blurred.bands[-1] < 1


def test_each_rendered_surface_is_measured_and_shown(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--size", "160", "--side", "32", "--count", "2", "--pictures", str(tmp_path)]
    assert main(["--base", str(tiny_base), *sizes]) == 0
    told = capsys.readouterr().out
    for surface, kind in RENDERED:
        assert f"{surface} {kind}: 2 defects in windows of" in told
    assert told.count("without detail: finest") == told.count("with    detail: finest") == len(RENDERED)
    rows = sorted(tmp_path.glob("*.png"))
    assert len(rows) == 2 * len(RENDERED)
    with Image.open(rows[0]) as row:
        assert row.width == 3 * row.height


def test_a_folder_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
