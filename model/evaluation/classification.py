"""The second detector of the protocol: a small ResNet that tells defect types apart, trained on defects only.

It sees whole photographs, squashed to a square, as in the protocol of AnomalyDiffusion and DualAnoDiff. The last
weights are the result: nothing is chosen on held-out photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from model.data.pixels import to_pixels
from model.runtime.progress import Meter, Progress
from model.types import ImageArray, Pair
from service.core.errors import UsageError

GAINS, OFFSET = (0.8, 1.25), 20.0
"""Augmentation: contrast, and brightness in grey levels, at most."""

SHIFT = 1 / 12
"""Augmentation: largest shift, as a share of the side."""

AT_ONCE = 32
"""Photographs classified in one pass."""


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """How the classifier is trained.

    Attributes:
        resolution: side of the square that photographs are squashed to, pixels.
        steps, batch, lr: of the training with Adam; the learning rate falls to zero along a cosine.
        seed: of the weights, the batches and the augmentation.
        widths, depths: channels and blocks of the network's four levels.
        timm: name of one of timm's networks, without its weights, in place of the small one.
    """

    resolution: int = 96
    steps: int = 120
    batch: int = 16
    lr: float = 1e-3
    seed: int = 0
    widths: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    timm: str | None = None


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained network in eval mode, `(B, 3, R, R)` in [-1, 1] → logits per type, and the types in its order."""

    net: nn.Module
    types: tuple[str, ...]
    resolution: int


def train_classifier(
    pairs_by_type: Mapping[str, Sequence[Pair]], settings: ClassifierSettings, device: torch.device | None = None
) -> Iterator[Progress | Classifier]:
    """Train a classifier; yields progress, finally the classifier. On a CPU the same arguments give the same weights.

    Args:
        pairs_by_type: at least two defect types, each with at least one pair; types are drawn equally often.
        settings: how it is trained.
        device: where to compute; the CPU by default.

    Raises:
        UsageError: there are fewer than two types, a type has no pairs, or timm is asked for and lacks.
    """
    types = tuple(pairs_by_type)
    if len(types) < 2 or not all(pairs_by_type.values()):
        counts = ", ".join(f"{name} {len(pairs)}" for name, pairs in pairs_by_type.items()) or "none"
        raise UsageError(f"pairs per defect type: {counts}; to tell types apart takes at least two, each with pairs")
    device = device or torch.device("cpu")
    images = [[_squashed(pair.image, settings.resolution) for pair in pairs_by_type[name]] for name in types]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = _Logits(_network(settings, len(types))).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    meter = Meter("classify", settings.steps, "steps")
    for step in range(settings.steps):
        pixels, target = _batch(images, settings.batch, np.random.default_rng([settings.seed, step]))
        loss = F.cross_entropy(net(pixels.to(device)), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % 20 == 0 or step + 1 == settings.steps:
            yield meter.report(step + 1, loss=float(loss.detach()))
    yield Classifier(net.eval(), types, settings.resolution)


@torch.inference_mode()
def classify(classifier: Classifier, images: Sequence[ImageArray]) -> list[str]:
    """Return the likeliest defect type of each `(H, W, 3)` uint8 image."""
    device = next(classifier.net.parameters()).device
    answers: list[str] = []
    for start in range(0, len(images), AT_ONCE):
        batch = [_squashed(image, classifier.resolution) for image in images[start : start + AT_ONCE]]
        logits = classifier.net(to_pixels(batch).to(device))
        answers += [classifier.types[int(number)] for number in logits.argmax(1)]
    return answers


def accuracy(classifier: Classifier, pairs_by_type: Mapping[str, Sequence[Pair]]) -> float:
    """Return the share of photographs whose type is recognised."""
    hits = np.concatenate(_hits(classifier, pairs_by_type))
    return float(hits.mean())


def balanced_accuracy(classifier: Classifier, pairs_by_type: Mapping[str, Sequence[Pair]]) -> float:
    """Return the mean over types of the share that is recognised, so that large types count no more than small ones."""
    return float(np.mean([hits.mean() for hits in _hits(classifier, pairs_by_type)]))


def _hits(classifier: Classifier, pairs_by_type: Mapping[str, Sequence[Pair]]) -> list[NDArray[np.bool_]]:
    return [
        np.array([answer == name for answer in classify(classifier, [pair.image for pair in pairs])])
        for name, pairs in pairs_by_type.items()
        if pairs
    ]


class _Logits(nn.Module):
    """Unwraps the output of transformers' networks; those of timm return logits as they are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Any = self.net(pixels)
        logits: Tensor = getattr(answer, "logits", answer)
        return logits


def _network(settings: ClassifierSettings, types: int) -> nn.Module:
    if settings.timm is not None:
        if find_spec("timm") is None:
            raise UsageError(f"classifier is timm's {settings.timm}, but timm is not installed: pip install timm")
        net: nn.Module = import_module("timm").create_model(settings.timm, pretrained=False, num_classes=types)
        return net
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_channels=3,
        embedding_size=settings.widths[0],
        hidden_sizes=list(settings.widths),
        depths=list(settings.depths),
        layer_type="basic",
        num_labels=types,
    )
    small: nn.Module = ResNetForImageClassification(config)
    return small


def _squashed(image: ImageArray, side: int) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _batch(images: Sequence[Sequence[ImageArray]], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw photographs, types equally often; returns `(B, 3, R, R)` in [-1, 1] and the types' numbers `(B,)`."""
    types = rng.integers(len(images), size=size)
    drawn = [_augmented(images[number][int(rng.integers(len(images[number])))], rng) for number in types]
    return to_pixels(drawn), torch.from_numpy(types)


def _augmented(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Turn by quarters, mirror and shift, and change contrast and brightness."""
    image = np.rot90(image, int(rng.integers(4)))
    if rng.random() < 0.5:
        image = image[:, ::-1]
    most = round(image.shape[0] * SHIFT)
    down, right = rng.integers(0, 2 * most + 1, 2)
    padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="reflect")
    image = padded[down : down + image.shape[0], right : right + image.shape[1]]
    gain, offset = float(np.exp(rng.uniform(*np.log(GAINS)))), rng.uniform(-OFFSET, OFFSET)
    mean = image.mean()
    return np.clip((image - mean) * gain + mean + offset, 0, 255).astype(np.uint8)
