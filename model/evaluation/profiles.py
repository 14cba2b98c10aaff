"""Sizes of an evaluation: how many pairs and seeds, and how large and how long trained the detectors are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from model.evaluation.classification import ClassifierSettings
from service.core.errors import UsageError
from service.core.options.presets import Preset
from service.core.strict_json import to_json

COMPARED = ("real", "copy-paste", "anomalydiffusion", "real+copy-paste", "real+anomalydiffusion")
"""What users decide about, in ten minutes: DualAnoDiff's candidates take longer on the shipped base."""

PUBLISHED_METHODS = (
    *("real", "copy-paste", "dualanodiff", "anomalydiffusion"),
    *("real+copy-paste", "real+dualanodiff", "real+anomalydiffusion"),
)
"""Both methods and what they are compared with. Their ablations are rows to ask for: each is another training."""


SMALL = ClassifierSettings(steps=300)


@dataclass(frozen=True, slots=True)
class Profile:
    """One budget, the same for every row of a table.

    Attributes:
        name: "quick", "cpu" or "paper".
        pairs: generated pairs per defect type.
        seeds: numbers of the repetitions; each trains its own adapters and detectors.
        rows: what is compared by default.
        resolution: longer side of a photograph as the detector sees it, pixels; smaller ones are not enlarged.
        square: whether photographs are squashed to a square of that side, as in the papers.
        patch: side of the random crops that the detector is trained on, pixels.
        stride: pixels per side that the detector's first layer joins, 1 or 2.
        widths: channels of the detector's levels.
        detectors: detectors per row and seed; their numbers are averaged, since two trained on the same pairs differ by
            several points.
        steps, batch, lr: of its training; the learning rate falls to a fifth at 80 % and at 90 % of the steps.
        attempts: most candidates per pair; where they are used up, a source has fewer pairs.
        adapter_steps: training steps of an adapter; None leaves them to the method and the base.
        precision, preset: of training and sampling, likewise.
        classifier: the network that tells defect types apart, with the repetition's seed in place of its own.
    """

    name: str
    pairs: int
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[str, ...] = PUBLISHED_METHODS
    resolution: int = 320
    square: bool = False
    patch: int = 96
    stride: int = 2
    widths: tuple[int, ...] = (16, 32, 64, 128)
    detectors: int = 1
    steps: int = 400
    batch: int = 8
    lr: float = 3e-3
    attempts: int = 4
    adapter_steps: int | None = None
    precision: str | None = None
    preset: Preset | None = None
    classifier: ClassifierSettings = SMALL

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON."""
        return dict(json.loads(to_json(asdict(self))))

    def with_choices(
        self,
        *,
        pairs: int | None = None,
        seeds: int | None = None,
        rows: tuple[str, ...] | None = None,
        detectors: int | None = None,
        steps: int | None = None,
    ) -> Self:
        """Change how many pairs per type, seeds and detectors there are, their steps, and what is compared."""
        return replace(
            self,
            pairs=self.pairs if pairs is None else pairs,
            seeds=self.seeds if seeds is None else tuple(range(seeds)),
            rows=rows or self.rows,
            detectors=self.detectors if detectors is None else detectors,
            steps=self.steps if steps is None else steps,
        )


PROFILES = {
    "quick": Profile(
        "quick",
        pairs=16,
        rows=COMPARED,
        steps=150,
        adapter_steps=100,
        classifier=ClassifierSettings(steps=100),
    ),
    "cpu": Profile("cpu", pairs=32, detectors=3, adapter_steps=150),
    "paper": Profile(
        "paper",
        pairs=500,
        resolution=256,
        square=True,
        patch=256,
        stride=1,
        widths=(64, 128, 256, 512),
        steps=12_500,
        lr=1e-4,
        preset="paper",
        classifier=ClassifierSettings(
            resolution=256, steps=30 * 500 // 8, batch=8, lr=1e-4, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3)
        ),
    ),
}
"""Both small ones train and sample in the precision that the base recommends, or in fp32 where the processor is slow in
bf16. `paper` follows AnomalyDiffusion and DualAnoDiff (adapters by the paper's preset, 200 epochs of 500 samples at
256² in batches of 8, 30 epochs of a ResNet-34) and needs a GPU. How long each takes:
`service.core.options.evaluation.DURATIONS`."""


def profile_named(name: str) -> Profile:
    """Find a profile.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in PROFILES:
        *others, last = PROFILES
        raise UsageError(f"profile is {name!r}; it must be {', '.join(others)} or {last}")
    return PROFILES[name]
