"""Noise-shaped patches: their size, their shape, and what they are filled with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model.baselines.adapter import BaselineAdapter
from model.baselines.perlin import draw, perlin_noise
from model.baselines.sampler import Draft, Scene
from model.baselines.textures import ALTERATIONS, FIELDS, draw_texture
from model.data.drawing import draw_in_turn
from model.data.references import make_references
from model.diffusion.base import Base, load_base
from model.runtime.seeding import pair_seed
from model.types import Candidate
from service.core.options.baselines import CollectionConfig, PerlinConfig
from tests.support.tiny_data import drawn_normal, drawn_pair, surface


@pytest.fixture(scope="module")
def scene(tiny_base: Path) -> Scene:
    base: Base = load_base(str(tiny_base))
    pairs = [drawn_pair(seed, 160, 160) for seed in range(3)]
    config = CollectionConfig(resolution=base.resolution, view="window")
    references, placements = make_references(pairs, config.view, config.resolution, config.seed)
    adapter = BaselineAdapter(base, config, {"greyscale": False}, pairs, references, placements)
    return Scene(adapter, [drawn_normal(0, 200, 180), drawn_normal(1, 200, 180)], None)


def drawn(scene: Scene, index: int, **options: float) -> Candidate:
    seed = pair_seed(0, index)
    normal = draw_in_turn(scene.normals, index, 0)
    return draw(Draft(scene, normal, index, seed, np.random.default_rng(seed)), PerlinConfig(**options))


@pytest.mark.parametrize(("smallest", "largest"), [(0.5, 1.5), (0.1, 0.2), (2.0, 3.0)])
def test_patches_are_as_large_as_asked(scene: Scene, smallest: float, largest: float) -> None:
    shares = [reference.mask.mean() for reference in scene.adapter.references]
    for index in range(24):
        candidate = drawn(scene, index, smallest_area=smallest, largest_area=largest)
        assert candidate.window is not None
        side = candidate.window[2] - candidate.window[0]
        share = candidate.mask.sum() / side**2
        assert 0.99 * min(smallest * min(shares), 0.8) <= share <= 1.01 * largest * max(shares)


def test_patches_are_not_cut_off_by_their_window(scene: Scene) -> None:
    for index in range(24):
        candidate = drawn(scene, index)
        assert candidate.window is not None
        left, top, right, bottom = candidate.window
        inside = candidate.mask[top:bottom, left:right]
        height, width = candidate.mask.shape
        assert left == 0 or not inside[:, 0].any()
        assert top == 0 or not inside[0].any()
        assert right == width or not inside[:, -1].any()
        assert bottom == height or not inside[-1].any()


def test_noise_is_centred_smooth_and_never_twice_the_same() -> None:
    fields = [perlin_noise(96, np.random.default_rng(seed)) for seed in range(30)]
    assert all(np.abs(field).max() <= np.sqrt(2) for field in fields)
    assert abs(np.mean(fields)) < 0.1
    assert max(np.abs(np.diff(field, axis=axis)).max() for field in fields for axis in (0, 1)) < 1.0
    assert len({field.tobytes() for field in fields}) == 30
    parts = {ndimage.label(field > 0.5)[1] for field in fields}
    assert min(parts) <= 3
    assert max(parts) >= 30


@pytest.mark.parametrize("side", [8, 100, 300])
def test_textures_have_the_size_asked_for(side: int) -> None:
    textures = [draw_texture([surface(0), surface(1, 20, 90)], side, np.random.default_rng(seed)) for seed in range(30)]
    assert all(texture.shape == (side, side, 3) and texture.dtype == np.uint8 for texture in textures)
    assert len({texture.tobytes() for texture in textures}) > 25


@pytest.mark.parametrize("number", range(len(FIELDS)))
def test_every_field_varies(number: int) -> None:
    field = FIELDS[number](48, np.random.default_rng(0))
    assert field.shape == (48, 48)
    assert np.isfinite(field).all()
    assert field.std() > 0


@pytest.mark.parametrize("number", range(len(ALTERATIONS)))
def test_every_alteration_keeps_the_size(number: int) -> None:
    from PIL import Image

    picture = ALTERATIONS[number](Image.fromarray(surface(0)), np.random.default_rng(0))
    assert (picture.size, picture.mode) == ((40, 48), "RGB")
