"""What both baselines draw from, and the sampler that turns a drawing function into candidates."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from model.baselines.adapter import BaselineAdapter
from model.data.drawing import draw_in_turn
from model.data.placement import NormalImage
from model.data.two_levels import TwoLevels
from model.masks.objects import Objects
from model.method import always
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Progress
from model.runtime.seeding import pair_seed
from model.types import Candidate, MaskArray

Draw = Callable[["Draft"], Candidate]


@dataclass(frozen=True, slots=True)
class Scene:
    """What all candidates of a request are drawn from.

    Attributes:
        objects: finds products in the normals; None without a network.
        levels: of the real photographs, where they have but two.
    """

    adapter: BaselineAdapter
    normals: Sequence[NormalImage]
    objects: Objects | None
    levels: TwoLevels | None = None

    def product_in(self, normal: NormalImage) -> MaskArray | None:
        """Find the product, `(H, W)` bool; None where the normal shows a surface, or nothing can be found."""
        return self.objects.in_normal(normal.name) if self.objects is not None else None


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate that is to be drawn on a normal image, from its index and the request's seed alone."""

    scene: Scene
    normal: NormalImage
    index: int
    seed: int
    rng: np.random.Generator


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """A candidate that is already complete."""

    candidate: Candidate

    @property
    def index(self) -> int:
        """Return the candidate's index."""
        return self.candidate.index

    def to_candidate(self) -> Candidate:
        """Return the candidate."""
        return self.candidate


@dataclass(frozen=True, slots=True)
class BaselineSampler:
    """Draws candidates one by one.

    Attributes:
        seed: of the request.
        draw: makes a candidate.
    """

    scene: Scene
    seed: int
    draw: Draw
    budget: BatchBudget

    def decoded(
        self, start: int, stop: int, is_needed: Callable[[int], bool] = always
    ) -> Generator[Progress | DrawnPair, None, None]:
        """Draw the candidates `start` to `stop - 1` that are needed."""
        for index in filter(is_needed, range(start, stop)):
            seed = pair_seed(self.seed, index)
            normal = draw_in_turn(self.scene.normals, index, self.seed)
            draft = Draft(self.scene, normal, index, seed, np.random.default_rng(seed))
            yield DrawnPair(self.draw(draft))
