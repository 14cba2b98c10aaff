"""Procedural samples: exact masks, visible defects, captions within the vocabulary, the same from the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from model.pretrain.data import load_views
from model.pretrain.procedural import CLASSES, DEFECTS, Sample, render, vocabulary
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.dataset import Renderer, render_shard, scene_views
from model.pretrain.procedural.defects import DEFECTS as KINDS
from model.pretrain.procedural.faults import CIRCUIT_FAULTS as FAULTS
from model.pretrain.procedural.noise import fractal, mix, smooth
from model.pretrain.procedural.objects import OBJECTS, place
from model.pretrain.procedural.surfaces import SURFACES


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [render(seed, 64) for seed in range(60)]


def _change(sample: Sample) -> np.ndarray:
    return np.abs(sample.image.astype(int) - sample.normal).mean(axis=2)


def test_the_same_seed_gives_the_same_sample() -> None:
    first, again, other = render(7, 64), render(7, 64), render(8, 64)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert first.caption == again.caption
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_arrays_have_the_size_asked_for(size: int) -> None:
    sample = render(3, size)
    assert sample.image.shape == sample.normal.shape == (size, size, 3)
    assert sample.mask.shape == sample.object_mask.shape == (size, size)
    assert sample.image.dtype == sample.normal.dtype == np.uint8
    assert sample.mask.dtype == sample.object_mask.dtype == np.bool_


def test_masks_are_neither_empty_nor_more_than_half_the_picture(samples: list[Sample]) -> None:
    assert min(int(sample.mask.sum()) for sample in samples) >= 6
    assert max(float(sample.mask.mean()) for sample in samples) <= 0.5


def test_defects_are_visible_inside_the_mask(samples: list[Sample]) -> None:
    visible = [_change(sample)[sample.mask].mean() >= 9 for sample in samples]
    assert np.mean(visible) > 0.95


def test_nothing_changes_far_from_the_mask(samples: list[Sample]) -> None:
    """Defects blend over few pixels, so a picture differs from its normal only about its mask."""
    far = [_change(sample)[~sample.mask].mean() for sample in samples]
    near = [_change(sample)[sample.mask].mean() for sample in samples]
    assert np.mean(far) < 0.02 * np.mean(near)


@pytest.mark.parametrize("name", list(DEFECTS))
def test_defects_of_every_kind_change_the_picture_where_they_cover_it_and_nowhere_else(name: str) -> None:
    """Beyond two pixels from where a defect covers the picture visibly, it covers it not at all."""
    size = 96
    rows, columns = np.mgrid[:size, :size]
    tracks = np.where((rows // 8) % 2 == 0, 0.75, 0.25).astype(np.float32)
    picture = np.repeat(tracks[..., None], 3, axis=2)
    canvas = Canvas(picture, np.zeros_like(picture), (columns - 6.0).astype(np.float32))
    for seed in range(8):
        defect = KINDS[name](np.random.default_rng(seed), canvas, 1.0)
        assert defect.picture.shape == picture.shape
        assert defect.coverage.shape == (size, size)
        assert np.isfinite(defect.picture).all()
        assert 0 <= defect.coverage.min() <= defect.coverage.max() <= 1
        mask = defect.coverage >= 0.4
        change = np.abs(defect.picture - picture).mean(axis=2) * defect.coverage
        if mask.any():
            assert change[mask].mean() > 0.01
            assert change[~binary_dilation(mask, iterations=2)].mean() < 0.004


def test_some_defects_cross_the_picture_and_some_are_tiny() -> None:
    samples = [render(seed, 64) for seed in range(300)]
    lengths = [max(np.ptp(axis) + 1 for axis in np.nonzero(sample.mask)) for sample in samples]
    assert max(lengths) == 64
    assert min(lengths) <= 5
    shares = [sample.mask.mean() for sample in samples]
    assert max(shares) > 0.25
    assert np.median(shares) < 0.05


def test_circuits_mostly_have_the_faults_of_circuits() -> None:
    samples = [render(seed, 32) for seed in range(600)]
    faults = {
        on: [s.defect_name in FAULTS for s in samples if ("circuit" in s.object_name) == on] for on in (True, False)
    }
    assert np.mean(faults[True]) > 0.4
    assert np.mean(faults[False]) < 0.1


def test_an_open_cuts_a_track_and_a_short_joins_two() -> None:
    rows, _ = np.mgrid[:96, :96]
    dark = ((rows // 8) % 3 == 0)[..., None]
    canvas = Canvas(
        np.where(dark, 0.1, 0.9).repeat(3, axis=2).astype(np.float32), np.zeros((96, 96, 3)), np.full((96, 96), 96.0)
    )
    for name, pieces in (("open", 1), ("short", -1)):
        defect = KINDS[name](np.random.default_rng(3), canvas, 1.0)
        picture = mix(canvas.picture, defect.picture, defect.coverage)
        assert label(picture.mean(axis=2) < 0.5)[1] == label(dark[..., 0])[1] + pieces


def test_defects_lie_on_the_part(samples: list[Sample]) -> None:
    on_part = [sample.object_mask[sample.mask].mean() for sample in samples]
    assert min(on_part) > 0.8


def test_captions_keep_to_the_vocabulary(samples: list[Sample]) -> None:
    known = set(vocabulary())
    for sample in samples:
        assert set(sample.caption.split()) <= known
        assert set(sample.part_caption.split()) <= known
        assert sample.object_name in CLASSES
        assert sample.defect_name in DEFECTS
        assert sample.object_name in sample.caption


@pytest.mark.parametrize("name", list(SURFACES))
def test_every_surface_has_texture_and_finite_colours(name: str) -> None:
    picture = SURFACES[name](np.random.default_rng(0), 64)
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.002


@pytest.mark.parametrize("name", list(OBJECTS))
def test_every_object_has_an_inside_and_an_outside(name: str) -> None:
    rng = np.random.default_rng(1)
    picture, distance = OBJECTS[name](rng, place(rng, 64))
    assert np.isfinite(picture).all()
    assert 0.02 < (distance > 0).mean() < 1


def test_noise_keeps_its_variance_at_every_scale() -> None:
    rng = np.random.default_rng(2)
    for scale in (1.0, 3.0, 8.0):
        assert np.mean([smooth(rng, 64, scale).var() for _ in range(20)]) == pytest.approx(1.0, abs=0.2)
    assert np.mean([fractal(rng, 64, 8).var() for _ in range(20)]) == pytest.approx(1.0, abs=0.2)


def test_a_shard_holds_the_views_of_its_seeds(tmp_path: Path) -> None:
    render_shard(tmp_path / "0.safetensors", 5, 3, 48, 32)
    views, sample = load_views(tmp_path / "0.safetensors"), render(6, 48)
    close, wider = scene_views(sample, 32, np.random.default_rng([6, 48, 32]))
    for index, view in ((2, close), (3, wider)):
        assert np.array_equal(views.images[index], view.image)
        assert np.array_equal(views.normals[index], view.normal)
        assert np.array_equal(views.masks[index], view.mask)
        assert np.array_equal(views.object_masks[index], view.object_mask)
        assert views.names[index] == (sample.object_name, sample.defect_name)


def test_rendering_resumes_where_shards_are_missing(tmp_path: Path) -> None:
    def rendered() -> list[int]:
        with Renderer(tmp_path, 0, 5, 48, 32, processes=1, shard=2) as renderer:
            return list(renderer.until(5))

    assert (rendered()[0], rendered()) == (0, [5])
    kept, lost, _ = sorted(tmp_path.glob("*.safetensors"))
    written, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    assert sorted(set(rendered())) == [3, 5]
    assert kept.stat().st_mtime_ns == written
    assert lost.read_bytes() == content
    assert not list(tmp_path.glob("*.partial"))
