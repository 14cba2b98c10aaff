"""The detector of the protocol: a plain U-Net that marks defective pixels, trained from scratch on one row's pairs.

Half of every batch shows defects and half good parts, with focal loss (γ = 2), as in the protocol of AnomalyDiffusion
and DualAnoDiff, and Dice loss beside it. The last weights are the result: no epoch is chosen, least of all on held-out
photographs. Every row gets the same augmentation, the same number of steps and the same good parts.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from model.data.crops import COVERED
from model.data.pixels import to_pixels
from model.evaluation.profiles import Profile
from model.runtime.progress import Meter, Progress
from model.training.divergence import OTHER_DRAWS, require_finite_loss, require_finite_weights
from model.types import ImageArray, MaskArray

GAMMA = 2.0
"""Exponent of the focal loss."""

PRIOR = 0.05
"""Probability of a defect that the network begins with (Lin et al. 2017, section 4.1); from 0.5 a short training would
learn little else."""

FOCAL_WEIGHT = 20.0
"""Of the focal loss beside the Dice loss: both are then of one size at the start."""

TRAINING = "detector"
"""Name of a detector's training in progress."""

SCORE_FILTER = 21
"""Side of the mean filter whose greatest value is an image's score, pixels (DRAEM, and the papers after it)."""

ON_DEFECT = 0.8
"""Share of a defective photograph's crops that are placed on its defect; the others lie anywhere."""

SCALES, TURN = (0.85, 1.18), 10.0
"""Augmentation: sizes, and rotation in degrees beyond the quarter turns."""

GAINS, OFFSET, NOISE, BLUR = (0.9, 1.11), 8.0, 2.0, 0.5
"""Augmentation: contrast, brightness, deviation of noise (grey levels), deviation of blur (pixels), at most."""


AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 23}
"""Pixels of photographs that are shown to the detector in one pass. On a CPU the layers of several large ones leave the
cache: eight of 240 × 320 px took 31 ms each together, and 18 ms alone."""


@dataclass(frozen=True)
class Example:
    """A photograph as the detector sees it: `(H, W, 3)` uint8, and its mask `(H, W)` bool, empty for good parts."""

    image: ImageArray
    mask: MaskArray

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Row and column of each defective pixel, `(N, 2)`."""
        return np.argwhere(self.mask)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with batch normalisation; `(B, 3, H, W)` in [-1, 1] → logits `(B, 1, H, W)`.

    Height and width must be multiples of `multiple`. With a stride of 2 it works at half the resolution: squares of
    four pixels become channels at the start, and channels become pixels at the end.
    """

    def __init__(self, widths: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        first = (3 * stride**2, *widths[:-1])
        self.down = nn.ModuleList(_block(before, width) for before, width in zip(first, widths, strict=True))
        self.up = nn.ModuleList(
            _block(above + width, width) for above, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.out = nn.Conv2d(widths[0], stride**2, 1)

    @property
    def multiple(self) -> int:
        """What height and width are multiples of."""
        return int(self.stride * 2 ** (len(self.down) - 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.pixel_unshuffle(pixels, self.stride)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return F.pixel_shuffle(self.out(x), self.stride) + math.log(PRIOR / (1 - PRIOR))


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def prepare_example(image: ImageArray, mask: MaskArray | None, profile: Profile) -> Example:
    """Resize a photograph and its mask to what the detector sees; `mask` is None for a good part."""
    height, width = image.shape[:2]
    scale = min(1.0, profile.resolution / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if profile.square:
        size = (profile.resolution, profile.resolution)
    if mask is None:
        mask = np.zeros((height, width), np.bool_)
    if size == (width, height):
        return Example(image, mask)
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    small = share >= (COVERED if share.max() >= COVERED else max(share.max() * 0.6, 1e-6))
    return Example(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)), small)


def train_detector(
    defective: Sequence[Sequence[Example]], good: Sequence[Example], profile: Profile, seed: int, device: torch.device
) -> Generator[Progress, None, UNet]:
    """Train a detector; yields progress, returns the network in eval mode.

    On a CPU the same arguments give the same weights.

    Args:
        defective: groups of defective examples that are drawn from equally often, each not empty.
        good: good parts; without any, whole batches show defects.

    Raises:
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(profile.widths, profile.stride).to(device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    optimizer = torch.optim.Adam(net.parameters(), lr=profile.lr, fused=True)
    milestones = [round(profile.steps * share) for share in (0.8, 0.9)]
    rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    meter = Meter(TRAINING, profile.steps, "steps")
    net.train()
    for step in range(profile.steps):
        pixels, target = _batch(defective, good, profile, np.random.default_rng([seed, step]))
        logits = net(pixels.to(device, memory_format=torch.channels_last))
        loss = detection_loss(logits, target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % 5 == 0 or step + 1 == profile.steps:
            yield meter.report(step + 1, loss=require_finite_loss(float(loss.detach()), step + 1, OTHER_DRAWS))
    require_finite_weights(net.parameters(), profile.steps, OTHER_DRAWS)
    return net.eval()


def detection_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Add the Dice loss of the crops that show a defect to the focal loss; both `(B, 1, H, W)`, the target in {0, 1}.

    Focal loss averages `(1 − p)^γ · (−log p)` over all pixels, where p is the probability of the right answer (Lin et
    al. 2017). Defects are a hundredth of them, so short trainings need the Dice loss (Milletari et al. 2016) as well.
    """
    cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - torch.exp(-cost)) ** GAMMA * cost).mean()
    found, wanted = logits.sigmoid().flatten(1), target.flatten(1)
    dice = 1 - (2 * (found * wanted).sum(1) + 1) / (found.sum(1) + wanted.sum(1) + 1)
    shown = wanted.amax(1)
    return FOCAL_WEIGHT * focal + (dice * shown).sum() / shown.sum().clamp(min=1)


def predict(net: UNet, images: Sequence[ImageArray]) -> Iterator[NDArray[np.float32]]:
    """Yield each pixel's probability of being defective, `(H, W)` in [0, 1], of photographs in order.

    Those of one size that follow each other are shown to the network together, up to `AT_ONCE` pixels.
    """
    device = next(net.parameters()).device
    for shape, alike in groupby(images, key=lambda image: image.shape):
        most = max(1, AT_ONCE.get(device.type, AT_ONCE["cpu"]) // (shape[0] * shape[1]))
        same = list(alike)
        for start in range(0, len(same), most):
            yield from _predicted(net, same[start : start + most], device)


@torch.inference_mode()
def _predicted(net: UNet, images: Sequence[ImageArray], device: torch.device) -> NDArray[np.float32]:
    """Return `(B, H, W)` of photographs of one size."""
    height, width = images[0].shape[:2]
    pad = ((0, -height % net.multiple), (0, -width % net.multiple), (0, 0))
    mode: Literal["reflect", "edge"] = "reflect" if min(height, width) > net.multiple else "edge"
    pixels = to_pixels([np.pad(image, pad, mode=mode) for image in images])
    logits = net(pixels.to(device, memory_format=torch.channels_last))[:, 0, :height, :width]
    return logits.sigmoid().float().cpu().numpy()


def image_score(probabilities: NDArray[np.float32]) -> float:
    """Return an image's score: the greatest mean over a square of `SCORE_FILTER` pixels."""
    return float(ndimage.uniform_filter(probabilities, SCORE_FILTER, mode="constant").max())


def _batch(
    defective: Sequence[Sequence[Example]], good: Sequence[Example], profile: Profile, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw crops: `(B, 3, patch, patch)` in [-1, 1], and their masks `(B, 1, patch, patch)` in {0, 1}."""
    crops = []
    for number in range(profile.batch):
        if good and number >= profile.batch // 2:
            crops.append(_crop(good[int(rng.integers(len(good)))], profile, rng))
        else:
            group = defective[int(rng.integers(len(defective)))]
            crops.append(_crop(group[int(rng.integers(len(group)))], profile, rng))
    masks = torch.from_numpy(np.stack([crop.mask for crop in crops])).float()[:, None]
    return to_pixels([crop.image for crop in crops]), masks


def _crop(example: Example, profile: Profile, rng: np.random.Generator) -> Example:
    """Cut a random crop: turned, mirrored, scaled, and changed in brightness and sharpness."""
    height, width = example.mask.shape
    places = example.places
    if rng.random() < ON_DEFECT and len(places):
        centre = places[int(rng.integers(len(places)))] + rng.uniform(-0.4, 0.4, 2) * profile.patch
    else:
        centre = rng.uniform(0, 1, 2) * (height, width)
    whole = profile.square
    if whole:
        centre = np.array([height / 2, width / 2])
    angle = np.deg2rad(90.0 * rng.integers(4) + rng.uniform(-TURN, TURN))
    scale = float(np.exp(rng.uniform(*np.log(SCALES)))) if not whole else 1.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    turned[:, 0] *= mirror
    middle = np.array([profile.patch, profile.patch]) / 2
    matrix = np.column_stack([turned, centre[::-1] - turned @ middle])
    side = (profile.patch, profile.patch)
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    image = cv2.warpAffine(example.image, matrix, side, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    share = cv2.warpAffine(
        example.mask.astype(np.float32), matrix, side, flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return Example(_recoloured(np.asarray(image, np.float32), rng), share >= 0.5)


def _recoloured(image: NDArray[np.float32], rng: np.random.Generator) -> ImageArray:
    gain, offset = float(np.exp(rng.uniform(*np.log(GAINS)))), rng.uniform(-OFFSET, OFFSET)
    mean = image.mean()
    changed = (image - mean) * gain + mean + offset
    if rng.random() < 0.3:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.2, BLUR))
    changed = changed + rng.normal(0, rng.uniform(0, NOISE), image.shape[:2])[..., None]
    return np.clip(changed, 0, 255).astype(np.uint8)
