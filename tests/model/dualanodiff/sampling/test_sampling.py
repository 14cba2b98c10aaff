"""Sampling pairs: the same bytes however a request is cut, any scheduler, and untouched normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from scipy import ndimage

from model.data.copy_paste import CopyPaste
from model.data.laying import FADE
from model.data.placement import NormalImage, draw_anchor
from model.diffusion.base import Base, load_base
from model.diffusion.schedulers import make_scheduler
from model.dualanodiff.adapter import DualAnoDiffAdapter, make_references
from model.dualanodiff.model import build_model
from model.dualanodiff.sampling.anchoring import anchor_on, canvas_of
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.decode import decode_pairs
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.masks.networks import load_mask_networks
from model.runtime.seeding import draw_noise, pair_seed
from model.types import GREY, Candidate, Pair
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import drawn_normal, half_seeing_u2net, surface, tiny_adapter

FEW = SamplingConfig(steps=3, batch=2, mask_method=MaskMethod.THRESHOLD)
NORMALS = [drawn_normal(0), drawn_normal(1, 40, 70)]
SCHEDULERS = (
    "dpmsolver++",
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "HeunDiscreteScheduler",
)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> DualAnoDiffAdapter:
    return tiny_adapter(base)


@pytest.fixture(scope="module")
def v_adapter(tiny_v_base: Path) -> DualAnoDiffAdapter:
    return tiny_adapter(load_base(str(tiny_v_base)))


def sample(adapter: DualAnoDiffAdapter, config: SamplingConfig, start: int, stop: int, **given: Any) -> list[Candidate]:
    if config.anchored:
        given["normals"] = NORMALS
    return list(sample_pairs(prepare_sampling(adapter, config, **given), start, stop))


def same(one: Sequence[Candidate], other: Sequence[Candidate]) -> bool:
    return len(one) == len(other) and all(
        (a.index, a.seed, a.normal, a.window) == (b.index, b.seed, b.normal, b.window)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("image", "mask", "part"))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("anchored", "sketch"), [(False, 0.0), (True, 0.0), (True, 0.4)])
def test_a_request_gives_the_same_bytes_however_it_is_cut(
    adapter: DualAnoDiffAdapter, sketch: float, *, anchored: bool
) -> None:
    config = replace(FEW, batch=3, anchored=anchored, sketch_strength=sketch)
    whole = sample(adapter, config, 0, 7)
    assert [candidate.index for candidate in whole] == list(range(7))
    for start in (1, 3, 5):
        assert same(sample(adapter, config, start, 7), whole[start:])
    assert same(sample(adapter, config, 0, 4), whole[:4])


@pytest.mark.parametrize(
    ("scheduler", "sketch"), [("dpmsolver++", 0.0), ("EulerAncestralDiscreteScheduler", 0.0), ("dpmsolver++", 0.4)]
)
def test_the_same_pair_in_a_batch_of_any_size(adapter: DualAnoDiffAdapter, scheduler: str, sketch: float) -> None:
    config = replace(FEW, scheduler=scheduler, anchored=sketch > 0, sketch_strength=sketch)
    whole = sample(adapter, config, 0, 5)
    for batch in (1, 3, 5):
        assert same(sample(adapter, replace(config, batch=batch), 0, 5), whole)


@pytest.fixture(scope="module")
def hairline_adapter(base: Base) -> DualAnoDiffAdapter:
    """As trained on two photographs with a scratch ten times as long as a window of 16 pixels is wide."""
    return replace_references(tiny_adapter(base, view="window"), [scratched_pair(seed) for seed in range(2)])


@pytest.mark.parametrize("sketch", [0.0, 0.4])
@pytest.mark.parametrize("method", [MaskMethod.THRESHOLD, MaskMethod.ATTENTION])
def test_a_long_defect_is_generated_on_a_canvas_of_many_windows(
    hairline_adapter: DualAnoDiffAdapter, sketch: float, method: MaskMethod
) -> None:
    """In any batch, beside pairs of one window, and without a pixel changed far from its course."""
    config = replace(FEW, anchored=True, sketch_strength=sketch, mask_method=method)
    normals = [drawn_normal(3, 150, 170)]
    made = list(sample_pairs(prepare_sampling(hairline_adapter, config, normals=normals), 0, 4))
    alone = list(sample_pairs(prepare_sampling(hairline_adapter, replace(config, batch=1), normals=normals), 0, 4))
    assert same(made, alone)
    again = list(sample_pairs(prepare_sampling(hairline_adapter, config, normals=normals), 2, 4))
    assert same(again, made[2:])
    for candidate in made:
        assert candidate.image.shape == normals[0].image.shape
        assert candidate.window is not None
        assert candidate.window[2] - candidate.window[0] > 100
        changed = (candidate.image != normals[0].image).any(2)
        near = ndimage.distance_transform_edt(~candidate.mask) <= 16 if candidate.mask.any() else np.zeros_like(changed)
        assert not (changed & ~near).any()


@pytest.fixture(scope="module")
def line_adapter(base: Base) -> DualAnoDiffAdapter:
    """As trained on a photograph with a scratch that is a line in windows of 32 pixels, and one with a spot."""
    adapter = tiny_adapter(base, view="window", resolution=32)
    image, spot = surface(5, 150, 160).copy(), np.zeros((150, 160), np.bool_)
    spot[60:72, 80:92] = True
    image[spot] //= 3
    return replace_references(adapter, [scratched_pair(0), Pair("spot", image, spot)])


def test_a_line_has_a_given_part_and_its_mask_and_the_rest_stays(line_adapter: DualAnoDiffAdapter) -> None:
    """In any batch, beside pairs whose parts the model makes; what these show does not change by it."""
    config = replace(FEW, anchored=True, part_guidance=3.0)
    normals = [drawn_normal(3, 150, 170)]

    def sampled(config: SamplingConfig, start: int = 0) -> list[Candidate]:
        return list(sample_pairs(prepare_sampling(line_adapter, config, normals=normals), start, 6))

    made, composed = sampled(config), sampled(replace(config, part_guidance=0.0))
    assert same(made, sampled(replace(config, batch=1)))
    assert same(made[2:], sampled(config, 2))
    long = [candidate.window is not None and candidate.window[2] - candidate.window[0] > 100 for candidate in made]
    assert 0 < sum(long) < len(made)
    for candidate, other, is_long in zip(made, composed, long, strict=True):
        if not is_long:
            assert same([candidate], [other])
            continue
        assert np.ptp(np.argwhere(candidate.mask), axis=0).max() > 60
        assert candidate.mask.sum() < 8 * np.ptp(np.argwhere(candidate.mask), axis=0).max()
        places = np.argwhere(candidate.mask).astype(float)
        assert np.linalg.eigvalsh(np.cov(places.T))[0] < 2, "straight as the real one, and as thin"
        assert (np.abs(candidate.part[candidate.mask].astype(int) - GREY).max(-1) > 8).mean() > 0.9
        changed = (candidate.image != normals[0].image).any(2)
        assert changed[candidate.mask].mean() > 0.5
        assert not changed[ndimage.distance_transform_edt(~candidate.mask) > 2 * FADE].any()


def test_no_part_is_given_where_no_image_would_follow_it(base: Base) -> None:
    """Without SAIM the image does not see the part; and a sketch has a part of its own."""
    hearing, deaf = (
        replace_references(tiny_adapter(base, view="window", resolution=32, saim=saim), [scratched_pair(0)])
        for saim in (True, False)
    )
    normals, plain = [drawn_normal(3, 150, 170)], replace(FEW, anchored=True)

    def changes(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> bool:
        made, other = (
            list(sample_pairs(prepare_sampling(adapter, each, normals=normals), 0, 2))
            for each in (config, replace(config, part_guidance=3.0))
        )
        return not same(made, other)

    assert changes(hearing, plain)
    assert changes(hearing, replace(plain, guidance_scale=1.0))
    assert not changes(deaf, plain)
    assert not changes(hearing, replace(plain, sketch_strength=0.4))


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (0.1, 0.1)])
def test_a_given_line_ends_with_a_region_that_is_too_small_for_it(
    line_adapter: DualAnoDiffAdapter, sizes: tuple[float, float]
) -> None:
    config = replace(FEW, anchored=True, part_guidance=3.0, sizes=sizes, region=(0.0, 0.0, 0.05, 0.05))
    sampler = prepare_sampling(line_adapter, config, normals=[drawn_normal(3, 150, 170)])
    made = list(sample_pairs(sampler, 0, 4))
    assert len(made) == 4
    for candidate in made:
        assert not candidate.mask[9:].any()
        assert not candidate.mask[:, 10:].any()


def test_a_given_line_of_which_nothing_is_left_makes_an_empty_pair(line_adapter: DualAnoDiffAdapter) -> None:
    sampler = prepare_sampling(
        line_adapter, replace(FEW, anchored=True, part_guidance=3.0), normals=[drawn_normal(3, 150, 170)]
    )
    anchor = draw_anchor(sampler.normals, line_adapter.placements[:1], np.random.default_rng(0), (False, False))
    side = canvas_of(line_adapter, anchor)
    grey, nothing = np.full((side, side, 3), GREY, np.uint8), np.zeros((side, side), np.bool_)
    copy = CopyPaste(grey, grey, nothing, nothing)
    assert sampler.grey is not None
    found = anchor_on(
        sampler.adapter, [anchor], [np.random.default_rng(0)], sampler.grey, sketched=False, copies=[copy]
    )
    assert found.given is not None
    assert not found.given.regions.any()
    latents = torch.zeros(2, 1, *found.normal.shape[1:])
    pair = decode_pairs(
        sampler.adapter,
        replace(sampler.config, mask_method=MaskMethod.THRESHOLD),
        latents,
        [0],
        [0],
        attention=None,
        anchors=[anchor],
        anchoring=found,
    )[0]
    assert not pair.to_candidate().mask.any()
    assert pair.reach == 0


@pytest.mark.parametrize("match", [True, False])
def test_masks_that_are_found_may_follow_the_change_by_a_latent_cell(
    adapter: DualAnoDiffAdapter, *, match: bool
) -> None:
    config = replace(FEW, anchored=True, match_mask=match, mask_method=MaskMethod.THRESHOLD)
    sampler = prepare_sampling(adapter, config, normals=[drawn_normal(3, 96, 96)])
    anchor = draw_anchor(sampler.normals, adapter.placements, np.random.default_rng(0), (False, False))
    assert sampler.grey is not None
    found = anchor_on(adapter, [anchor], [np.random.default_rng(0)], sampler.grey, sketched=False)
    latents = torch.zeros(2, 1, *found.normal.shape[1:])
    pair = decode_pairs(adapter, sampler.config, latents, [0], [0], attention=None, anchors=[anchor], anchoring=found)[
        0
    ]
    assert pair.reach == match * adapter.base.factor


def scratched_pair(seed: int) -> Pair:
    image = surface(seed, 150, 160).copy()
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[70 + 5 * seed : 72 + 5 * seed, 15:150] = True
    image[mask] //= 3
    return Pair(f"scratch{seed}", image, mask)


def replace_references(adapter: DualAnoDiffAdapter, pairs: list[Pair]) -> DualAnoDiffAdapter:
    references, placements = make_references(pairs, adapter.model.config)
    return replace(adapter, references=references, placements=placements)


@pytest.mark.timeout(900)  # threads that spin take minutes where the cores are taken
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_shipped_base_makes_the_same_pair_in_any_batch_with_any_number_of_threads(precision: str) -> None:
    base = load_base("mini")
    adapter = tiny_adapter(base, resolution=base.resolution, lora_targets="all", rank=32)
    adapter = replace(adapter, mask_net=load_mask_networks(base).part)
    config = resolve_sampling(base, {"precision": precision, "steps": 2}, has_normals=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = sample(adapter, config, 0, 4)
        for threads, batch in ((1, 1), (2, 1), (2, 2), (2, 3), (1, 3), (2, 5)):
            torch.set_num_threads(threads)
            assert same(sample(adapter, replace(config, batch=batch), 2, 4), whole[2:])
    finally:
        torch.set_num_threads(before)


def test_every_pair_and_every_seed_is_another(adapter: DualAnoDiffAdapter) -> None:
    drawn = [*sample(adapter, FEW, 0, 3), *sample(adapter, replace(FEW, seed=1), 0, 3)]
    assert len({candidate.seed for candidate in drawn}) == 6
    assert len({candidate.image.tobytes() for candidate in drawn}) == 6
    assert len({candidate.part.tobytes() for candidate in drawn}) == 6


def test_sketches_are_for_anchored_sampling_and_one_strength_says_where_it_starts(base: Base) -> None:
    advised = replace(base, card={"sampling": {"sketch_strength": 0.4}})
    assert resolve_sampling(advised, {}, has_normals=True).sketch_strength == 0.4
    assert resolve_sampling(advised, {}, has_normals=False).sketch_strength == 0
    assert resolve_sampling(advised, {"anchored": False}, has_normals=True).sketch_strength == 0
    chosen = resolve_sampling(advised, {"strength": 0.7}, has_normals=True)
    assert (chosen.strength, chosen.sketch_strength) == (0.7, 0.0)
    with pytest.raises(UsageError, match="anchored sampling, on normal images, is off"):
        resolve_sampling(advised, {"sketch_strength": 0.5}, has_normals=False)
    with pytest.raises(UsageError, match="choose one"):
        resolve_sampling(advised, {"sketch_strength": 0.5, "strength": 0.8}, has_normals=True)


def test_parts_are_given_on_normals_alone_and_not_beside_a_sketch(base: Base) -> None:
    advised = replace(base, card={"sampling": {"part_guidance": 3.0, "refine_strength": 0.5}})
    assert [resolve_sampling(advised, {}, has_normals=each).refine_strength for each in (True, False)] == [0.5, 0]
    assert resolve_sampling(advised, {}, has_normals=True).part_guidance == 3
    assert resolve_sampling(advised, {}, has_normals=False).part_guidance == 0
    published = resolve_sampling(advised, {"preset": "paper", "anchored": True}, has_normals=True)
    assert (published.part_guidance, published.match_mask) == (0, False)
    sketched = resolve_sampling(advised, {"sketch_strength": 0.4}, has_normals=True)
    assert (sketched.sketch_strength, sketched.part_guidance) == (0.4, 0)
    sketching = replace(base, card={"sampling": {"sketch_strength": 0.4}})
    given = resolve_sampling(sketching, {"part_guidance": 2.0}, has_normals=True)
    assert (given.sketch_strength, given.part_guidance) == (0, 2)
    with pytest.raises(UsageError, match=r"part_guidance is 2\.0, but anchored sampling, on normal images, is off"):
        resolve_sampling(advised, {"part_guidance": 2.0}, has_normals=False)
    with pytest.raises(UsageError, match="a sketch has its own part: choose one"):
        resolve_sampling(advised, {"part_guidance": 2.0, "sketch_strength": 0.5}, has_normals=True)


def test_a_base_may_advise_to_start_from_noise_and_a_sketch_stays_a_choice(base: Base) -> None:
    advised = replace(base, card={"sampling": {"strength": 0.95}})
    start = resolve_sampling(advised, {}, has_normals=True)
    assert (start.strength, start.sketch_strength) == (0.95, 0.0)
    assert resolve_sampling(advised, {"sketch_strength": 0.4}, has_normals=True).sketch_strength == 0.4
    assert not resolve_sampling(advised, {}, has_normals=False).anchored


def test_a_sketch_leaves_its_trace_in_the_part(adapter: DualAnoDiffAdapter) -> None:
    """Of a start almost without noise almost everything is left, so parts with and without a sketch differ."""
    config = replace(FEW, steps=20, anchored=True, sketch_strength=0.05, batch=4)
    plain = replace(config, sketch_strength=0.0, strength=0.05)
    for sketched, other in zip(sample(adapter, config, 0, 4), sample(adapter, plain, 0, 4), strict=True):
        assert sketched.window == other.window
        assert np.abs(sketched.part.astype(int) - other.part).max() > 20


def test_seeds_of_pairs_do_not_collide() -> None:
    seeds = {pair_seed(seed, index) for seed in range(20) for index in range(100)}
    assert len(seeds) == 2000
    assert max(seeds) < 2**63


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("fixture", ["adapter", "v_adapter"])
def test_any_scheduler_samples_reproducibly(fixture: str, scheduler: str, request: pytest.FixtureRequest) -> None:
    adapter = request.getfixturevalue(fixture)
    for anchored in (False, True):
        config = replace(FEW, scheduler=scheduler, anchored=anchored)
        both = sample(adapter, config, 0, 2)
        assert same(sample(adapter, config, 1, 2), both[1:])
        assert all(candidate.image.std() > 1 for candidate in both)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "dpmsolver++"])
@pytest.mark.parametrize("folder", ["tiny_base", "tiny_v_base"])
def test_fresh_adapters_sample_what_the_bases_own_pipeline_samples(
    folder: str, scheduler: str, guidance: float, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(folder)
    base = load_base(str(path))
    adapter = tiny_adapter(base)
    adapter.model = build_model(base, adapter.model.config, "metal tile", "crack")
    config = replace(FEW, scheduler=scheduler, guidance_scale=guidance)
    candidate = sample(adapter, config, 0, 1)[0]

    pipeline = StableDiffusionPipeline.from_pretrained(path)
    pipeline.scheduler = make_scheduler(scheduler, base.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    noise = draw_noise(candidate.seed, (2, 4, 8, 8))
    for prompt, latents, ours in zip(("a vfx with sks", "sks"), noise, (candidate.image, candidate.part), strict=True):
        theirs = pipeline(
            prompt, latents=latents[None], guidance_scale=guidance, num_inference_steps=3, output_type="np"
        ).images[0]
        assert np.abs(theirs * 255 - ours).max() <= 1


def test_guidance_of_one_is_the_conditional_prediction_alone(adapter: DualAnoDiffAdapter) -> None:
    """Computed without the unconditional one, and equal to weighing that with nothing."""
    plain, weighed = (sample(adapter, replace(FEW, guidance_scale=scale), 0, 2) for scale in (1.0, 1.0 + 1e-9))
    strong = sample(adapter, replace(FEW, guidance_scale=4.0), 0, 2)
    for one, other, third in zip(plain, weighed, strong, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        assert np.abs(one.image.astype(int) - third.image).max() > 1


@pytest.mark.parametrize("grey", [False, True])
def test_pairs_are_grey_where_the_real_ones_are(adapter: DualAnoDiffAdapter, *, grey: bool) -> None:
    told = replace(adapter, card=adapter.card | {"greyscale": grey})
    for candidate in sample(told, FEW, 0, 2):
        assert np.array_equal(candidate.image[..., 0], candidate.image[..., 2]) == grey
        assert np.array_equal(candidate.part[..., 0], candidate.part[..., 2]) == grey


def test_unanchored_pairs_have_the_models_size(adapter: DualAnoDiffAdapter) -> None:
    for candidate in sample(adapter, FEW, 0, 2):
        assert candidate.image.shape == candidate.part.shape == (32, 32, 3)
        assert candidate.mask.shape == (32, 32)
        assert (candidate.normal, candidate.window) == (None, None)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_anchored_pairs_leave_the_normal_untouched_around_the_defect(
    adapter: DualAnoDiffAdapter, strength: float
) -> None:
    config = replace(FEW, anchored=True, strength=strength)
    changed = 0
    for candidate in sample(adapter, config, 0, 6):
        normal = next(one.image for one in NORMALS if one.name == candidate.normal)
        assert candidate.window is not None
        left, top, right, bottom = candidate.window
        outside = np.ones(normal.shape[:2], np.bool_)
        outside[top:bottom, left:right] = False
        # The feather reaches 6 pixels of the model, resampling 4 more.
        reach = int(10 * max(1, (right - left) / 32))
        near = ndimage.binary_dilation(candidate.mask, np.ones((3, 3)), iterations=reach)
        assert candidate.image.shape == normal.shape
        assert np.array_equal(candidate.image[outside | ~near], normal[outside | ~near])
        assert not candidate.mask[outside].any()
        assert (candidate.part[outside] == GREY).all()
        changed += int((candidate.image != normal).any())
    assert changed


def test_good_parts_have_their_turn(adapter: DualAnoDiffAdapter) -> None:
    names = [each.normal for each in sample(adapter, replace(FEW, anchored=True), 0, 3 * len(NORMALS))]
    for start in range(0, len(names), len(NORMALS)):
        assert set(names[start : start + len(NORMALS)]) == {each.name for each in NORMALS}


def test_masks_come_from_the_adapters_network_or_the_attention(adapter: DualAnoDiffAdapter) -> None:
    seeing = replace(adapter, mask_net=half_seeing_u2net())
    drawn = {method: sample(seeing, replace(FEW, mask_method=method), 0, 2) for method in MaskMethod}
    for candidates in zip(*drawn.values(), strict=True):
        assert len({candidate.image.tobytes() for candidate in candidates}) == 1
        assert all(candidate.mask.shape == (32, 32) for candidate in candidates)
    assert all(candidate.mask.any() for candidate in drawn[MaskMethod.ATTENTION])


def test_without_a_mask_network_its_method_is_refused(adapter: DualAnoDiffAdapter) -> None:
    with pytest.raises(UsageError, match="the adapter has none: use threshold or attention"):
        sample(adapter, replace(FEW, mask_method=MaskMethod.U2NET), 0, 1)


def test_detail_of_real_defects_is_added_around_the_mask_alone(adapter: DualAnoDiffAdapter) -> None:
    config = replace(FEW, anchored=True)
    plain, detailed = (sample(adapter, replace(config, match_detail=chosen), 0, 4) for chosen in (False, True))
    differs = []
    for one, other in zip(plain, detailed, strict=True):
        assert np.array_equal(one.mask, other.mask)
        (normal,) = (each.image for each in NORMALS if each.name == one.normal)
        untouched = (one.image == normal).all(-1) & (ndimage.distance_transform_edt(~one.mask) > 12)
        assert np.array_equal(one.image[untouched], other.image[untouched])
        differs.append(bool((one.image != other.image).any()))
    assert any(differs)


def test_half_precision_samples_nearly_the_same(adapter: DualAnoDiffAdapter) -> None:
    full, half = (sample(adapter, replace(FEW, precision=precision), 0, 2) for precision in ("fp32", "bf16"))
    for one, other in zip(full, half, strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 3


def test_the_users_choice_counts_before_the_bases(base: Base) -> None:
    recommending = replace(base, card={"sampling": {"guidance_scale": 1.5, "steps": 7, "mask_method": "threshold"}})
    config = resolve_sampling(recommending, {"steps": 9, "seed": None}, has_normals=True)
    assert config == SamplingConfig(steps=9, guidance_scale=1.5, mask_method=MaskMethod.THRESHOLD, anchored=True)
    assert config.mask_method is MaskMethod.THRESHOLD


def test_settings_follow_what_the_adapter_has(base: Base) -> None:
    plain = resolve_sampling(base, {}, has_normals=False)
    bare = resolve_sampling(base, {}, has_normals=False, has_mask_net=False, bcm=True)
    assert (plain.mask_method, plain.guidance_scale, plain.anchored) == (MaskMethod.U2NET, 2.5, False)
    assert (bare.mask_method, bare.guidance_scale) == (MaskMethod.THRESHOLD, 2.0)


def test_every_option_that_cannot_be_is_named_at_once(base: Base) -> None:
    wrong = {
        "seed": -1,
        "steps": 0,
        "guidance_scale": float("nan"),
        "strength": 0.0,
        "blend_from": 2.0,
        "anchored": True,
        "scheduler": "UNet2DModel",
        "mask_method": "guess",
        "precision": "fp8",
    }
    with pytest.raises(UsageError) as caught:
        resolve_sampling(base, wrong, has_normals=False)
    told = " ".join(caught.value.problems)
    assert len(caught.value.problems) == len(wrong)
    assert all(name in told for name in wrong)


def test_unknown_options_are_named(base: Base) -> None:
    with pytest.raises(UsageError, match="unknown dualanodiff sampling options cfg; known are anchored, anywhere"):
        resolve_sampling(base, {"cfg": 2}, has_normals=False)


def test_on_circuits_a_part_is_given_where_the_surroundings_are_like_the_real_ones(base: Base) -> None:
    """A gap lies on a conductor; its mask is what the part shows, and nothing is grey."""
    adapter = tiny_adapter(base, view="window", resolution=32)
    board = np.full((120, 120, 3), 255, np.uint8)
    board[:, 50:58] = 0
    gap, image = np.zeros((120, 120), np.bool_), board.copy()
    gap[60:66, 50:58] = True
    image[gap] = 255
    adapter = replace_references(adapter, [Pair("open", image, gap)])
    other = np.full((120, 120, 3), 255, np.uint8)
    other[:, 20:28] = other[:, 90:98] = 0
    config = replace(FEW, anchored=True, part_guidance=3.0, batch=4)
    sampler = prepare_sampling(adapter, config, normals=[NormalImage("board", other)])
    made = list(sample_pairs(sampler, 0, 8))
    assert same(made, list(sample_pairs(replace(sampler, config=replace(config, batch=1)), 0, 8)))
    on_conductor = [float((other[candidate.mask] == 0).mean()) for candidate in made]
    assert np.median(on_conductor) > 0.8
    for candidate in made:
        assert set(np.unique(candidate.image)) <= {0, 255}
        assert not (candidate.image != other).any(-1)[~candidate.mask].any()
        assert 20 < candidate.mask.sum() < 100
    left = replace(config, region=(0.0, 0.0, 0.5, 1.0))
    made = list(sample_pairs(prepare_sampling(adapter, left, normals=sampler.normals), 0, 8))
    assert all(not candidate.mask[:, 60:].any() for candidate in made)
    assert np.median([candidate.mask.sum() for candidate in made]) > 20
    small, large = (
        list(sample_pairs(prepare_sampling(adapter, replace(config, sizes=sizes), normals=sampler.normals), 0, 8))
        for sizes in ((0.6, 0.6), (1.5, 1.5))
    )
    assert np.mean([each.mask.sum() for each in large]) > 2 * np.mean([each.mask.sum() for each in small])
