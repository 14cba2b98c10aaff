"""Inception-v3 (Szegedy et al. 2015) as the Fréchet Inception Distance and the Inception Score are defined on it.

Both were published with the graph `inception-2015-12-05` of TensorFlow, whose weights are spread as the state dict
`pt_inception-2015-12-05-6726825d.pth` with the names used here. Its network is not quite the paper's: averages at an
edge are over the pixels that exist, and the last block takes a maximum in place of an average. As in that graph, a
picture is resized to 299 × 299 by TensorFlow 1's bilinear rule, whatever its proportions, and the score's predictions
are without the last layer's bias. Implementations that resize by another rule give slightly different numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.evaluation.weights import read_weights, require_same
from model.types import ImageArray

SIDE = 299
FEATURES, CLASSES = 2048, 1008

BATCH = 16

NETWORK = "TensorFlow's Inception-v3 of 2015-12-05"

Kernel = int | tuple[int, int]
Layer = tuple[int, Kernel]
"""Channels and kernel, `(height, width)`."""

Vectors = NDArray[np.float64]


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; `same` keeps height and width."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, same: bool = False) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


@dataclass(frozen=True, slots=True)
class Branch:
    """Layers in a row; the last two may stand side by side, both fed by the one before."""

    name: str
    layers: tuple[Layer, ...]
    forked: bool = False

    def names(self) -> list[str]:
        """Return the layers' names in the published file."""
        if len(self.layers) == 1:
            return [self.name]
        count = len(self.layers)
        numbers = [f"{number}" for number in range(1, count + 1)]
        if self.forked:
            numbers[-2:] = [f"{count - 1}a", f"{count - 1}b"]
        return [f"{self.name}_{number}" for number in numbers]


class Block(nn.Module):
    """Branches beside a pooling, all of whose outputs are stacked; `pooled` channels follow the pooling."""

    def __init__(self, inputs: int, branches: Sequence[Branch], pooled: int, *, average: bool = True) -> None:
        super().__init__()
        self.branches, self.average = branches, average
        for branch in branches:
            _add(self, branch, inputs, stride=1)
        self.branch_pool = Unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.average:
            around = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        else:
            around = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat([*(_through(self, branch, x) for branch in self.branches), self.branch_pool(around)], dim=1)


class Reduction(nn.Module):
    """Branches that halve height and width in their last layer, beside the maximum of the input."""

    def __init__(self, inputs: int, branches: Sequence[Branch]) -> None:
        super().__init__()
        self.branches = branches
        for branch in branches:
            _add(self, branch, inputs, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(_through(self, branch, x) for branch in self.branches), F.max_pool2d(x, 3, 2)], dim=1)


def _add(block: nn.Module, branch: Branch, inputs: int, stride: int) -> None:
    names, last = branch.names(), len(branch.layers) - 1
    for number, (name, (outputs, kernel)) in enumerate(zip(names, branch.layers, strict=True)):
        ends = number == last and stride > 1
        block.add_module(name, Unit(inputs, outputs, kernel, stride=stride if ends else 1, same=not ends))
        if not (branch.forked and number == last - 1):
            inputs = outputs


def _through(block: nn.Module, branch: Branch, x: Tensor) -> Tensor:
    units = [block.get_submodule(name) for name in branch.names()]
    row, fork = (units[:-2], units[-2:]) if branch.forked else (units, [])
    for unit in row:
        x = unit(x)
    return torch.cat([unit(x) for unit in fork], dim=1) if fork else x


def _fine(inputs: int, pooled: int) -> Block:
    """At 35 × 35, figure 5 of the paper."""
    return Block(
        inputs,
        [
            Branch("branch1x1", ((64, 1),)),
            Branch("branch5x5", ((48, 1), (64, 5))),
            Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
        ],
        pooled,
    )


def _middle(width: int) -> Block:
    """At 17 × 17, figure 6: 7 × 7 as 1 × 7 and 7 × 1."""
    across, down = (1, 7), (7, 1)
    return Block(
        768,
        [
            Branch("branch1x1", ((192, 1),)),
            Branch("branch7x7", ((width, 1), (width, across), (192, down))),
            Branch("branch7x7dbl", ((width, 1), (width, down), (width, across), (width, down), (192, across))),
        ],
        192,
    )


def _coarse(inputs: int, *, average: bool) -> Block:
    """At 8 × 8, figure 7: branches that fork."""
    across, down = (1, 3), (3, 1)
    return Block(
        inputs,
        [
            Branch("branch1x1", ((320, 1),)),
            Branch("branch3x3", ((384, 1), (384, across), (384, down)), forked=True),
            Branch("branch3x3dbl", ((448, 1), (384, 3), (384, across), (384, down)), forked=True),
        ],
        192,
        average=average,
    )


class Inception(nn.Module):
    """The network with its published names; never trained here."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, same=True)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b = _fine(192, 32)
        self.Mixed_5c = _fine(256, 64)
        self.Mixed_5d = _fine(288, 64)
        self.Mixed_6a = Reduction(
            288, [Branch("branch3x3", ((384, 3),)), Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3)))]
        )
        self.Mixed_6b = _middle(128)
        self.Mixed_6c = _middle(160)
        self.Mixed_6d = _middle(160)
        self.Mixed_6e = _middle(192)
        self.Mixed_7a = Reduction(
            768,
            [
                Branch("branch3x3", ((192, 1), (320, 3))),
                Branch("branch7x7x3", ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))),
            ],
        )
        self.Mixed_7b = _coarse(1280, average=True)
        self.Mixed_7c = _coarse(2048, average=False)
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features, `(B, 2048)`, of pictures, `(B, 3, 299, 299)` in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))

    @torch.inference_mode()
    def describe(self, images: Sequence[ImageArray]) -> tuple[Vectors, Vectors]:
        """Return features, `(N, 2048)`, and predictions, `(N, 1008)`, the latter as probabilities.

        Args:
            images: `(H, W, 3)` uint8, of any sizes, at least one.
        """
        features, predictions = [], []
        for start in range(0, len(images), BATCH):
            pixels = torch.stack([resize(image) for image in images[start : start + BATCH]])
            seen = self((pixels.to(self.fc.weight.device) - 128) / 128)
            features.append(seen.double().cpu().numpy())
            predictions.append(F.softmax((seen @ self.fc.weight.T).double(), dim=1).cpu().numpy())
        return np.concatenate(features), np.concatenate(predictions)


def load_inception(path: Path) -> Inception:
    """Load the network from the published file, or the same tensors as `.safetensors`.

    Raises:
        UsageError: the file holds other weights; torchvision's own Inception-v3 is another network and is refused.
    """
    tensors = read_weights(path)
    network = Inception()
    require_same(tensors, network.state_dict(), path.name, NETWORK)
    network.load_state_dict(network.state_dict() | tensors)
    return network


def resize(image: ImageArray) -> Tensor:
    """Resize to 299 × 299 by TensorFlow 1's rule: pixel i of n is taken at i·size/n, between its two neighbours.

    Args:
        image: `(H, W, 3)` uint8.

    Returns:
        `(3, 299, 299)` float32 in [0, 255].
    """
    return _stretched(_stretched(torch.from_numpy(image.copy()).permute(2, 0, 1).float(), 1), 2)


def _stretched(pixels: Tensor, axis: int) -> Tensor:
    size = pixels.shape[axis]
    places = torch.arange(SIDE) * (size / SIDE)
    low = places.long()
    above = pixels.index_select(axis, (low + 1).clamp(max=size - 1))
    share = (places - low).view([-1 if number == axis else 1 for number in range(3)])
    return torch.lerp(pixels.index_select(axis, low), above, share.expand_as(above))
