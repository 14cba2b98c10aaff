"""LPIPS (Zhang et al. 2018), and the diversity within clusters by it (Ojha et al. 2021).

A picture goes through an ImageNet network; in five layers, the channels of each place are scaled to unit length. The
distance of two pictures is the sum, over the layers, of the mean over places of Σ w·(a − b)², with weights w ≥ 0 that
were fitted to people's judgements. With every layer multiplied by √(w / places) and all of them in one vector, it is
the squared length of the vectors' difference.

The networks are torchvision's AlexNet and VGG-16, the weights version 0.1 of the authors' (`alex.pth`, `vgg.pth`).
Ojha et al. measured IC-LPIPS on VGG-16; values on AlexNet compare with others on AlexNet only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model.evaluation.weights import READING, read_weights, require_same
from model.types import ImageArray
from service.core.errors import UsageError

SIDE = 256
"""To which Ojha et al. resize pictures, pixels."""

LARGEST_CLUSTER = 50

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Pictures in [-1, 1] become `(x − SHIFT) / SCALE`, ImageNet's normalisation: version 0.1."""

BATCH = 4


@dataclass(frozen=True, slots=True)
class Trunk:
    """The part of a network that LPIPS looks at.

    Attributes:
        layers: `(channels, kernel, stride, padding)` of a convolution with its ReLU, or `(kernel, stride)` of a
            maximum, in order.
        taps: numbers of the ReLUs that are looked at, from 0, as torchvision counts.
    """

    name: str
    layers: tuple[tuple[int, ...], ...]
    taps: tuple[int, ...]


ALEXNET = Trunk(
    "AlexNet",
    ((64, 11, 4, 2), (3, 2), (192, 5, 1, 2), (3, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
    (1, 4, 7, 9, 11),
)
VGG16 = Trunk(
    "VGG-16",
    (
        *((64, 3, 1, 1), (64, 3, 1, 1), (2, 2)),
        *((128, 3, 1, 1), (128, 3, 1, 1), (2, 2)),
        *((256, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), (2, 2)),
        *((512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1), (2, 2)),
        *((512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1)),
    ),
    (3, 8, 15, 22, 29),
)


class Lpips(nn.Module):
    """The distance on one trunk; `lin0` … `lin4` are the fitted weights of the five layers."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.features = _build(trunk)
        widths = {tap: each.out_channels for tap, each in enumerate(self.features, 1) if isinstance(each, nn.Conv2d)}
        for number, tap in enumerate(trunk.taps):
            self.register_buffer(f"lin{number}", torch.zeros(1, widths[tap], 1, 1))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a vector for each picture, `(B, D)`, whose squared distances are LPIPS.

        Args:
            x: pictures, `(B, 3, H, W)` in [-1, 1], of one size of at least 64 pixels.
        """
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        parts: list[Tensor] = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.trunk.taps:
                weights = self.get_buffer(f"lin{len(parts)}")
                unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                parts.append((unit * (weights / (x.shape[2] * x.shape[3])).sqrt()).flatten(1))
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def describe(self, images: Sequence[ImageArray]) -> Tensor:
        """Return the vectors, `(N, D)`, of images, `(H, W, 3)` uint8, resized to 256 × 256."""
        shown = torch.stack([_shown(image) for image in images]).to(self.get_buffer("shift").device)
        return torch.cat([self(shown[start : start + BATCH]) for start in range(0, len(shown), BATCH)])


def load_lpips(weights: Path, network: Path) -> Lpips:
    """Load the authors' weights and torchvision's network; their layers say whether it is AlexNet or VGG-16.

    Raises:
        UsageError: a file holds other weights, or the two do not belong together.
    """
    found = {name: each for name, each in read_weights(network).items() if not name.startswith("classifier.")}
    lpips = Lpips(VGG16 if "features.28.weight" in found else ALEXNET)
    expected = {f"features.{name}": each for name, each in lpips.features.state_dict().items()}
    require_same(found, expected, network.name, f"torchvision's {lpips.trunk.name}")
    lpips.features.load_state_dict({name.removeprefix("features."): each for name, each in found.items()})

    fitted = read_weights(weights)
    wanted = {f"lin{number}.model.1.weight": lpips.get_buffer(f"lin{number}") for number in range(5)}
    require_same(fitted, wanted, weights.name, f"LPIPS on {lpips.trunk.name}")
    if any((each < 0).any() for each in fitted.values()):
        raise UsageError(f"{weights.name} has negative weights, which LPIPS never has", READING)
    for name, buffer in wanted.items():
        buffer.copy_(fitted[name])
    return lpips


@dataclass(frozen=True, slots=True)
class ClusterDiversity:
    """IC-LPIPS.

    Attributes:
        mean: over the clusters of the mean distance between two of a cluster's pictures; None without any pair.
        clusters: how many of the real pictures have at least two generated ones.
        network: that the distance is taken on.
    """

    mean: float | None
    clusters: int
    network: str


@torch.inference_mode()
def cluster_diversity(lpips: Lpips, reals: Sequence[ImageArray], made: Sequence[ImageArray]) -> ClusterDiversity:
    """Measure the diversity of generated pictures around each real one (Ojha et al. 2021, section 4.2).

    Every generated picture joins the nearest real one; of each cluster the first 50 count, and clusters with fewer
    than two are left out. With x relative to the real picture, the mean over all pairs of n pictures is
    2/(n − 1) · (Σ|x|² − |Σx|²/n), so that no picture needs to be kept.

    Args:
        reals: `(H, W, 3)` uint8, at least one; what the generator was adapted to.
        made: the same, at least one.
    """
    centres = lpips.describe(reals)
    sums = torch.zeros_like(centres)
    squares, counts = np.zeros(len(reals)), np.zeros(len(reals), int)
    for image in made:
        offsets = lpips.describe([image]) - centres
        distances = offsets.square().sum(dim=1)
        nearest = int(distances.argmin())
        if counts[nearest] < LARGEST_CLUSTER:
            counts[nearest] += 1
            squares[nearest] += float(distances[nearest])
            sums[nearest] += offsets[nearest]
    found = [
        2 / (count - 1) * max(square - float(total.double().square().sum()) / count, 0.0)
        for count, square, total in zip(counts, squares, sums, strict=True)
        if count > 1
    ]
    return ClusterDiversity(float(np.mean(found)) if found else None, len(found), lpips.trunk.name)


def _build(trunk: Trunk) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for layer in trunk.layers:
        if len(layer) == 2:
            layers.append(nn.MaxPool2d(*layer))
        else:
            channels, kernel, stride, padding = layer
            layers += [nn.Conv2d(inputs, channels, kernel, stride, padding), nn.ReLU()]
            inputs = channels
    return nn.Sequential(*layers)


def _shown(image: ImageArray) -> Tensor:
    resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 127.5 - 1
