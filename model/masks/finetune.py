"""Fine-tunes the mask network on the user's own pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.data.pixels import to_pixels
from model.masks.u2net import U2Net, normalise
from model.runtime.progress import Meter, Progress
from model.runtime.seeding import step_generator
from model.training.divergence import require_finite_loss, require_finite_weights
from model.types import ImageArray, MaskArray
from service.core.errors import UsageError

KEEP_NETWORK = "train with mask_steps 0, which keeps the base's own mask network"
"""What to do if the fine-tuning diverges; its learning rate is not an option."""


def adapt_u2net(
    net: U2Net,
    parts: Sequence[ImageArray],
    masks: Sequence[MaskArray],
    *,
    seed: int,
    steps: int = 60,
    batch: int = 4,
    lr: float = 1e-3,
) -> Iterator[Progress]:
    """Fine-tune the mask network on the user's own pairs, in place; the same seed gives the same weights.

    Batch-norm statistics stay those of the pretrained weights: a handful of pairs cannot estimate them.

    Args:
        net: in evaluation mode, before and after; on any device.
        parts: `(H, W, 3)` uint8 each, on mid-grey, all of one size.
        masks: the `(H, W)` bool masks of these parts, in the same order.
        seed: seed of all random draws.
        steps: number of batches.
        batch: parts per step, drawn with replacement.
        lr: peak learning rate; it falls to 0 along a cosine.

    Raises:
        UsageError: if there are no parts, or numbers or sizes differ.
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    shapes = sorted({part.shape[:2] for part in parts} | {mask.shape for mask in masks})
    if not parts or len(parts) != len(masks) or len(shapes) > 1:
        raise UsageError(
            f"got {len(parts)} parts and {len(masks)} masks of the sizes {shapes}; "
            "there must be at least one part, as many masks as parts, and a single size",
            "the mask network cannot be fine-tuned",
        )
    pixels, targets = to_pixels(parts), torch.from_numpy(np.stack(masks)).float()[:, None]
    if side := net.preprocessing.input_size:
        pixels = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True).clamp(-1, 1)
        targets = functional.interpolate(targets, size=(side, side), mode="bilinear", antialias=True).round()
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    meter = Meter("mask network", steps, "steps")
    for step in range(steps):
        generator = step_generator(seed, step)
        chosen = torch.randint(len(parts), (batch,), generator=generator)
        moved, target = move(pixels[chosen], targets[chosen], generator, outside="zeros")
        inputs = normalise(degrade(moved, generator).to(device), net.preprocessing)
        loss = deep_loss(net(inputs), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield meter.report(step + 1, loss=require_finite_loss(loss.item(), step + 1, KEEP_NETWORK))
    require_finite_weights(net.parameters(), steps, KEEP_NETWORK)


def deep_loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Sum the binary cross-entropy over the fused and the six side outputs (U²-Net, section 3.3, all weights 1).

    Args:
        logits: seven tensors `(B, 1, H, W)`.
        target: `(B, 1, H, W)` float in {0, 1}.
    """
    losses = [functional.binary_cross_entropy_with_logits(output.float(), target) for output in logits]
    return torch.stack(losses).sum()


def move(pixels: Tensor, masks: Tensor, generator: torch.Generator, *, outside: str) -> tuple[Tensor, Tensor]:
    """Flip every image at random; rotate, scale and shift every other one; the mask alike.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the generator's device.
        masks: `(B, 1, H, W)` float in {0, 1}.
        outside: how to fill pixels beyond the border, as in `grid_sample`: `zeros` (grey, for parts) or `reflection`.
    """
    device = generator.device
    draws = torch.rand((6, len(pixels)), generator=generator, device=device)
    whole = draws[0] < 0.5
    angle = (draws[1] - 0.5) * 0.7 * ~whole
    scale = torch.where(whole, 1.0, 0.8 * (1.25 / 0.8) ** draws[2])
    flips = torch.randint(2, (2, len(pixels)), generator=generator, device=device) * 2 - 1
    shifts = (draws[3:5] - 0.5) * 0.4 * ~whole
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack((cosine, -sine, shifts[0])) * flips[0], torch.stack((sine, cosine, shifts[1])) * flips[1]]
    grid = functional.affine_grid(torch.stack(rows).permute(2, 0, 1), list(pixels.shape), align_corners=False)
    both = functional.grid_sample(torch.cat((pixels, masks), 1), grid, padding_mode=outside, align_corners=False)
    return both[:, :3], (both[:, 3:] > 0.5).float()


def degrade(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Imitate what an autoencoder and a sampler do to an image: slight blur, white and coarse noise, a colour shift.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the generator's device.
    """
    count, channels, height, width = pixels.shape
    device = generator.device
    strength = torch.rand((4, count, 1, 1, 1), generator=generator, device=device)
    coarse_size = (-(-height // 8), -(-width // 8))
    white = torch.randn(pixels.shape, generator=generator, device=device)
    coarse = torch.randn((count, channels, *coarse_size), generator=generator, device=device)
    coarse = functional.interpolate(coarse, size=(height, width), mode="bilinear")
    shift = torch.randn((count, channels, 1, 1), generator=generator, device=device)
    blurred = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    result = torch.lerp(pixels, blurred, strength[0])
    result = result + 0.06 * strength[1] * white + 0.06 * strength[2] * coarse + 0.03 * strength[3] * shift
    return result.clamp(-1, 1)
