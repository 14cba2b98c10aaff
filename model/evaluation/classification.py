"""The second detector of the protocol: a small ResNet that tells defect types apart, trained on defects only.

It sees whole photographs, squashed to a square, as in the protocol of AnomalyDiffusion and DualAnoDiff. The last
weights are the result: nothing is chosen on held-out photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from model.data.pixels import to_pixels
from model.runtime.progress import Meter, Progress
from model.training.divergence import OTHER_DRAWS, require_finite_loss, require_finite_weights
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
    """

    resolution: int = 96
    steps: int = 120
    batch: int = 16
    lr: float = 1e-3
    seed: int = 0
    widths: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained network in eval mode, `(B, 3, R, R)` in [-1, 1] → logits per type, and the types in its order."""

    net: nn.Module
    types: tuple[str, ...]
    resolution: int


Groups = Sequence[Sequence[Pair]]
"""Pairs of one defect type, in groups that count the same however many pairs they have."""


def train_classifier(
    groups_by_type: Mapping[str, Groups], settings: ClassifierSettings, device: torch.device | None = None
) -> Iterator[Progress | Classifier]:
    """Train a classifier; yields progress, finally the classifier. On a CPU the same arguments give the same weights.

    Args:
        groups_by_type: at least two defect types, each with at least one pair, such as a group of real and one of
            generated pairs. Types are drawn equally often, and so are the groups of a type that are not empty.
        settings: how it is trained.
        device: where to compute; the CPU by default.

    Raises:
        UsageError: there are fewer than two types, or a type has no pairs.
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    types = tuple(groups_by_type)
    if len(types) < 2 or not all(any(groups) for groups in groups_by_type.values()):
        counts = ", ".join(f"{name} {sum(map(len, groups))}" for name, groups in groups_by_type.items()) or "none"
        raise UsageError(f"pairs per defect type: {counts}; to tell types apart takes at least two, each with pairs")
    device = device or torch.device("cpu")
    images = [
        [[_squashed(pair.image, settings.resolution) for pair in group] for group in groups_by_type[name] if group]
        for name in types
    ]
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
            yield meter.report(step + 1, loss=require_finite_loss(float(loss.detach()), step + 1, OTHER_DRAWS))
    require_finite_weights(net.parameters(), settings.steps, OTHER_DRAWS)
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


def balanced_accuracy(classifier: Classifier, parts_by_type: Mapping[str, Groups]) -> float:
    """Return how often types are recognised: the mean over the types of the mean over their physical parts.

    Types count the same however many parts they have, and parts however many photographs show them.

    Args:
        parts_by_type: at least one type with photographs; a group holds those of one physical part, and is not empty.
    """
    return float(
        np.mean(
            [
                np.mean([_recognised(classifier, name, part) for part in parts])
                for name, parts in parts_by_type.items()
                if parts
            ]
        )
    )


def _recognised(classifier: Classifier, name: str, part: Sequence[Pair]) -> float:
    """Return the share of a part's photographs that are taken for this type."""
    answers = classify(classifier, [pair.image for pair in part])
    return answers.count(name) / len(answers)


class _Logits(nn.Module):
    """Unwraps the output of transformers' networks."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Any = self.net(pixels)
        logits: Tensor = answer.logits
        return logits


def _network(settings: ClassifierSettings, types: int) -> nn.Module:
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


def _batch(
    images: Sequence[Sequence[Sequence[ImageArray]]], size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw photographs from types → groups → images, types and groups equally often.

    Returns:
        `(B, 3, R, R)` in [-1, 1], and the types' numbers `(B,)`.
    """
    types = rng.integers(len(images), size=size)
    groups = [images[number][int(rng.integers(len(images[number])))] for number in types]
    drawn = [_augmented(group[int(rng.integers(len(group)))], rng) for group in groups]
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
