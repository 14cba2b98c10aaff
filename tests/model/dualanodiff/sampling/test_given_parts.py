"""What the anomaly branch is given, and how images are guided towards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from model.data.copy_paste import CLEAR, CopyPaste, clear_part
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.tiling import Tiling
from model.dualanodiff.sampling.given_parts import GivenParts, give_parts, is_line, must_fit, pull_towards
from model.types import GREY, ImageArray, MaskArray, Pair, anomaly_part
from service.core.options.dualanodiff import TrainingConfig

GREY_LATENT = torch.full((1, 2, 1, 1), 0.3)


def line() -> MaskArray:
    mask = np.zeros((32, 32), np.bool_)
    mask[15:17, 4:28] = True
    return mask


def pasted(colour: int, surface: int) -> tuple[CopyPaste, ImageArray]:
    normal = np.full((32, 32, 3), surface, np.uint8)
    image = normal.copy()
    image[line()] = colour
    return CopyPaste(image, anomaly_part(image, line()), line(), line()), normal


def given() -> GivenParts:
    copy, normal = pasted(20, 100)

    def cells(masks: list[MaskArray]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(mask[::4, ::4])[None].float() for mask in masks])

    def latents(images: list[ImageArray]) -> torch.Tensor:
        small = torch.stack([torch.from_numpy(image[::4, ::4, :2].astype(np.float32)) for image in images])
        return small.movedim(-1, 1) / 128 - 1

    return give_parts([(copy, normal), (None, normal)], latents, cells, GREY_LATENT)


def test_a_given_part_stays_and_the_image_changes_in_its_place_alone() -> None:
    parts = given()
    assert parts.rows.tolist() == [True, False]
    assert torch.equal(parts.parts[1], GREY_LATENT[0].expand(2, 8, 8))
    blended, clean = torch.zeros(2, 2, 2, 8, 8), torch.full((2, 2, 2, 8, 8), 5.0)
    normal = torch.ones(2, 2, 8, 8)
    image, part = parts.keep(blended, clean, normal)
    assert torch.equal(part[0], parts.parts[0])
    assert torch.equal(image[0] == 5, (parts.regions[0] == 1).expand(2, 8, 8))
    assert torch.equal(image[0] == 1, (parts.regions[0] == 0).expand(2, 8, 8))
    assert not image[1].any()
    assert not part[1].any()


def test_the_unconditional_pass_sees_noised_grey_instead_of_the_given_part() -> None:
    parts, schedule = given(), NoiseSchedule(torch.linspace(0.99, 0.01, 10), "epsilon")
    tiling = Tiling(((0, 0, 0), (0, 0, 4), (1, 2, 2)), 4, (8, 8), 2)
    step, noise = torch.tensor(6), torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = step.expand(2)
    pull = pull_towards(parts, tiling, GREY_LATENT, schedule, step, (3.0, 1.5))
    noised = schedule.add_noise(parts.parts, noise, steps)
    grey = schedule.add_noise(GREY_LATENT.expand_as(noise), noise, steps)
    torch.testing.assert_close(tiling.cut(noised) + pull.hiding, tiling.cut(grey))
    assert pull.scales.flatten().tolist() == [3.0, 3.0, 1.5]
    assert [chunk.scales.flatten().tolist() for chunk in pull.split(2)] == [[3.0, 3.0], [1.5]]


def test_a_grey_defect_in_a_grey_surface_is_shown_by_how_it_differs() -> None:
    """On mid-grey it would be invisible; one that is clear there keeps its colours."""
    faint, normal = pasted(125, 150)
    clear = clear_part(faint, normal)
    assert np.abs(faint.part[line()].astype(int) - GREY).max() < 5
    assert abs(GREY - clear[line()].mean() - CLEAR) < 1
    assert (clear[~line()] == GREY).all()
    dark, normal = pasted(20, 100)
    assert clear_part(dark, normal) is dark.part
    bright, normal = pasted(140, 120)
    assert clear_part(bright, normal)[line()].mean() > 170


def test_what_is_wide_is_shown_as_it_is() -> None:
    faint, normal = pasted(125, 150)
    encoded: list[ImageArray] = []

    def latents(images: Sequence[ImageArray]) -> torch.Tensor:
        encoded.extend(images)
        return torch.zeros(len(images), 2, 8, 8)

    placed = [(replace(faint, exact=exact), normal) for exact in (True, False)]
    give_parts(placed, latents, lambda masks: torch.zeros(len(masks), 1, 8, 8), GREY_LATENT)
    assert np.array_equal(encoded[0], clear_part(faint, normal))
    assert encoded[1] is faint.part


def at_rim(share: float) -> Pair:
    """A hole, of whose rim a share is dark tray."""
    image, mask = np.full((64, 64, 3), 180, np.uint8), np.zeros((64, 64), np.bool_)
    image[:, : round(16 + 20 * share)] = 60
    mask[24:40, 20:36] = True
    image[mask] = 60
    return Pair("hole", image, mask)


def test_defects_must_fit_where_most_of_them_lie_in_uneven_surroundings() -> None:
    inside, across = at_rim(-0.5), at_rim(0.5)
    assert must_fit([across])
    assert not must_fit([inside])
    assert must_fit([across, inside, across])
    assert not must_fit([inside, across, inside])


def test_lines_are_thin_and_ten_times_as_long_as_wide() -> None:
    config = TrainingConfig(resolution=32, view="window")
    long = np.zeros((100, 100), np.bool_)
    long[50:52, 4:96] = True
    assert is_line(long, config)
    assert is_line(line(), config)  # fits into a window
    short = np.zeros_like(line())
    short[15:17, 4:20] = True
    assert not is_line(short, config)
    hair = np.zeros_like(short)
    hair[15, 10:22] = True
    assert is_line(hair, config)  # one pixel wide
    dashed = long.copy()
    dashed[:, 20::20] = dashed[:, 21::20] = False
    assert is_line(dashed, config)
    assert not is_line(long, replace(config, resolution=16))
    wide = np.zeros((100, 100), np.bool_)
    wide[40:60, 4:96] = True
    assert not is_line(wide, config)
