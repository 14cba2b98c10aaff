"""Implements U²-Net: salient-object segmentation by a U of small U's.

Source: Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Pattern Recognition
106 (2020), section 3 and table 1. Parameter names are those of the published weight files, which load unchanged.

Eleven stages `stage1 … stage6, stage5d … stage1d` form the outer U. Each is a residual U-block (RSU): with
`x' = F_in(x)` its output is `x' + U(x')`, where `U` is itself a small U of the given height. The two deepest levels of
the outer U use dilation in place of pooling (RSU-4F). Every decoder level, and the bottom, has a side output; `d0`
fuses all six.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.kernels.batch_invariance import fixed_batches
from model.runtime import switches
from model.runtime.switches import Switch
from service.core.errors import UsageError
from service.core.strict_json import to_json


class Width(NamedTuple):
    """Channels of one stage: inside its small U, and at its output."""

    mid: int
    out: int


STAGES = (
    "stage1",
    "stage2",
    "stage3",
    "stage4",
    "stage5",
    "stage6",
    "stage5d",
    "stage4d",
    "stage3d",
    "stage2d",
    "stage1d",
)
HEIGHTS = {1: 7, 2: 6, 3: 5, 4: 4, 5: 4, 6: 4}
"""Height of the small U at each level of the outer U."""
DILATED_LEVELS = (5, 6)
READING = "the mask network cannot be read"

FULL = tuple(
    Width(*pair)
    for pair in (
        *((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
        *((256, 512), (128, 256), (64, 128), (32, 64), (16, 64)),
    )
)
"""U²-Net, 44.0 M parameters (table 1 of the paper)."""


def uniform(mid: int, out: int) -> tuple[Width, ...]:
    """Return the same width for all eleven stages."""
    return (Width(mid, out),) * len(STAGES)


SMALL = uniform(16, 64)
"""U²-Net-p (U²-Net† in the paper), 1.1 M parameters."""

_GRADED = tuple(Width(*pair) for pair in ((8, 16), (12, 32), (16, 48), (24, 64), (32, 64), (32, 64)))
GRADED = _GRADED + _GRADED[-2::-1]
"""Widths of the embedded weights: 1.0 M parameters, few at high resolution, so they take a third of U²-Net-p's time."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Describes the input that a network's weights expect.

    Attributes:
        input_size: side in pixels of the square that images are resized to, or None for the image's own size.
        mean: per RGB channel, of values in [0, 1].
        std: per RGB channel.
        divide_by_max: whether each image is first divided by its own largest value.
    """

    input_size: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    divide_by_max: bool


OFFICIAL = Preprocessing(320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), divide_by_max=True)
"""Preprocessing of the published weights: 320 × 320, ImageNet statistics."""
PLAIN = Preprocessing(None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), divide_by_max=False)
"""Preprocessing that keeps pixels in [-1, 1] at their own size."""


class ConvBlock(nn.Module):
    """3 × 3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn_s1(self.conv_s1(x)))


class ResidualUBlock(nn.Module):
    """RSU: `x' + U(x')` with `x' = F_in(x)`.

    Args:
        height: number of encoder levels of the small U, its dilated bottom included.
        dilated: RSU-4F: dilations 1, 2, 4, 8 at full resolution instead of pooling.
    """

    def __init__(self, height: int, in_channels: int, width: Width, *, dilated: bool = False) -> None:
        super().__init__()
        self.height = height
        self.dilated = dilated
        mid, out = width
        self.rebnconvin = ConvBlock(in_channels, out)
        for level in range(1, height + 1):
            dilation = 2 ** (level - 1) if dilated else 1 + (level == height)
            self.add_module(f"rebnconv{level}", ConvBlock(out if level == 1 else mid, mid, dilation))
        for level in range(height - 1, 0, -1):
            dilation = 2 ** (level - 1) if dilated else 1
            self.add_module(f"rebnconv{level}d", ConvBlock(2 * mid, out if level == 1 else mid, dilation))

    def forward(self, x: Tensor) -> Tensor:
        entry = self.rebnconvin(x)
        skips = []
        hidden = entry
        for level in range(1, self.height):
            hidden = self.get_submodule(f"rebnconv{level}")(hidden)
            skips.append(hidden)
            # The bottom keeps the resolution of the level above it; dilation widens its receptive field.
            if not self.dilated and level < self.height - 1:
                hidden = _halve(hidden)
        hidden = self.get_submodule(f"rebnconv{self.height}")(hidden)
        for level in range(self.height - 1, 0, -1):
            skip = skips[level - 1]
            hidden = self.get_submodule(f"rebnconv{level}d")(torch.cat((_resize_like(hidden, skip), skip), dim=1))
        return cast("Tensor", entry + hidden)


class U2Net(nn.Module):
    """Maps a normalised image to seven maps of logits.

    Args:
        widths: one per stage, in the order of `STAGES`.
        preprocessing: kept with the weights; applied by `saliency`, not by `forward`.
    """

    def __init__(self, widths: Sequence[Width] = SMALL, preprocessing: Preprocessing = OFFICIAL) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.preprocessing = preprocessing
        width = dict(zip(STAGES, self.widths, strict=True))
        channels = 3
        for level in range(1, 7):
            self._add_stage(f"stage{level}", level, channels, width[f"stage{level}"])
            channels = width[f"stage{level}"].out
        for level in range(5, 0, -1):
            self._add_stage(f"stage{level}d", level, channels + width[f"stage{level}"].out, width[f"stage{level}d"])
            channels = width[f"stage{level}d"].out
        for level in range(1, 7):
            stage = "stage6" if level == 6 else f"stage{level}d"
            self.add_module(f"side{level}", nn.Conv2d(width[stage].out, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)
        # Channels last is faster on CPUs; PyTorch's stubs do not know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _add_stage(self, name: str, level: int, channels: int, width: Width) -> None:
        self.add_module(name, ResidualUBlock(HEIGHTS[level], channels, width, dilated=level in DILATED_LEVELS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute seven maps of logits: the fused `d0`, then the side outputs `d1 … d6`.

        Args:
            x: `(B, 3, H, W)` float, normalised as `preprocessing` says; any size from 16 pixels up.

        Returns:
            Seven tensors `(B, 1, H, W)`; their sigmoid is the probability.
        """
        skips = []
        hidden = x
        for level in range(1, 6):
            hidden = self.get_submodule(f"stage{level}")(hidden)
            skips.append(hidden)
            hidden = _halve(hidden)
        hidden = self.get_submodule("stage6")(hidden)
        decoded = [hidden]
        for level in range(5, 0, -1):
            skip = skips[level - 1]
            hidden = self.get_submodule(f"stage{level}d")(torch.cat((_resize_like(hidden, skip), skip), dim=1))
            decoded.append(hidden)
        sides = [self.get_submodule(f"side{level}")(features) for level, features in enumerate(reversed(decoded), 1)]
        sides = [_resize_like(side, x) for side in sides]
        return [self.outconv(torch.cat(sides, dim=1)), *sides]


def _halve(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _resize_like(x: Tensor, reference: Tensor) -> Tensor:
    if x.shape[-2:] == reference.shape[-2:]:
        return x
    return functional.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise pixels as the network expects them; their size stays.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1].
    """
    unit = (pixels + 1) / 2
    if preprocessing.divide_by_max:
        unit = unit / unit.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    mean = torch.tensor(preprocessing.mean, dtype=unit.dtype, device=unit.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=unit.dtype, device=unit.device).view(1, 3, 1, 1)
    return (unit - mean) / std


def for_inference(net: U2Net, dtype: torch.dtype) -> U2Net:
    """Copy a network for `saliency`, in one precision, with every batch norm merged into the convolution before it."""
    copied = copy.deepcopy(net)
    if switches.on(Switch.FOLDED_U2NET):
        for block in copied.modules():
            if isinstance(block, ConvBlock):
                block.conv_s1 = fuse_conv_bn_eval(block.conv_s1, block.bn_s1)
                block.bn_s1 = nn.Identity()  # type: ignore[assignment]
    # As in U2Net: the stubs do not know the argument.
    copied.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied.requires_grad_(False)


@torch.no_grad()
def saliency(net: U2Net, pixels: Tensor, *, size: int | None = None) -> Tensor:
    """Compute the probability of the salient object (on an anomaly part: the defect) at every pixel.

    The published script also stretches each map to its own minimum and maximum. This is left out, because it would find
    an object in every image.

    Args:
        net: in evaluation mode.
        pixels: `(B, 3, H, W)` float in [-1, 1].
        size: side of the square given to the network; by default that of its preprocessing record.

    Returns:
        `(B, 1, H, W)` float in [0, 1], at the resolution of `pixels`.
    """
    side = size or net.preprocessing.input_size
    resized = pixels
    if side is not None:
        resized = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True).clamp(-1, 1)
    inputs = normalise(resized, net.preprocessing).to(net.outconv.weight.dtype)
    fused = fixed_batches(lambda rows: net(rows)[0], inputs).float()
    return torch.sigmoid(_resize_like(fused, pixels))


def save_u2net(net: U2Net, path: Path, *, half: bool = False) -> None:
    """Write weights and preprocessing record to one safetensors file.

    Args:
        path: ends in `.safetensors`.
        half: convolution kernels in float16. Batch-norm statistics stay float32: their range can exceed float16's.
    """
    tensors = {
        name: (tensor.half() if half and tensor.ndim == 4 else tensor).detach().cpu().contiguous()
        for name, tensor in net.state_dict().items()
    }
    save_file(tensors, path, metadata={"preprocessing": to_json(asdict(net.preprocessing))})


def load_u2net(path: Path) -> U2Net:
    """Load a network in evaluation mode, float32, on the CPU; its widths follow from the shapes in the file.

    Args:
        path: `.safetensors`, with the preprocessing record of `save_u2net` in its metadata (without it,
            that of the published weights is used); or a published `.pth`, read without executing code in it.

    Raises:
        UsageError: if it is no such file, or names or shapes of tensors differ from the architecture.
    """
    tensors, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    # Files written before PyTorch 0.4.1 lack this counter, which evaluation does not use.
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        tensors.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.long))

    preprocessing = OFFICIAL
    if "preprocessing" in metadata:
        record = json.loads(metadata["preprocessing"])
        preprocessing = Preprocessing(**(record | {key: tuple(record[key]) for key in ("mean", "std")}))
    net = U2Net(_widths(tensors, path), preprocessing)
    _check(tensors, net.state_dict(), path)
    net.load_state_dict(tensors)
    return net.eval()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{path.name} is not a safetensors file: {error}", READING) from error


def _read_pth(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    problem = f"{path.name} is not a PyTorch file with a dictionary of tensors and nothing else"
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no weights, PyTorch raises errors of a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{problem}: {reason}", READING) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UsageError(problem, READING)
    return dict(tensors), {}


def _widths(tensors: Mapping[str, Tensor], path: Path) -> tuple[Width, ...]:
    names = [(f"{stage}.rebnconv1.conv_s1.weight", f"{stage}.rebnconvin.conv_s1.weight") for stage in STAGES]
    absent = [name for pair in names for name in pair if name not in tensors]
    if absent:
        raise UsageError([f"{path.name} lacks {name}" for name in _first(absent)], READING)
    return tuple(Width(*(tensors[name].shape[0] for name in pair)) for pair in names)


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"{path.name} lacks {name}" for name in _first([name for name in expected if name not in found])]
    problems += [
        f"{path.name} has {name}, which U²-Net does not have"
        for name in _first([n for n in found if n not in expected])
    ]
    differing = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    problems += [
        f"{name} is {tuple(found[name].shape)} in {path.name}, {tuple(expected[name].shape)} in U²-Net"
        for name in _first(differing)
    ]
    if problems:
        raise UsageError(problems, READING)


def _first(names: Sequence[str], count: int = 8) -> Sequence[str]:
    """Return only the first names, because a file of another kind differs in hundreds."""
    return names[:count]
