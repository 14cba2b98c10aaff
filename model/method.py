"""What a method of generating pairs is: its options, training and loading of adapters, and sampling of candidates.

`model.methods` names the methods there are. Everything else — datasets, checks, workers, the command line — knows them
by these protocols only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from model.data.placement import NormalImage, Placement
from model.data.plan import Plan
from model.diffusion.base import Base
from model.masks.networks import MaskNetworks
from model.masks.u2net import U2Net
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Progress
from model.training.loop import CheckpointCallback
from model.types import Candidate, Pair
from service.core.options.methods import DEFAULT_METHOD
from service.core.places import Places
from service.core.uploads.reading import Range


class TrainingSettings(Protocol):
    """What every method's training options have."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the card."""

    def with_half_batch(self) -> Self:
        """Halve the pairs at once, rounded down, and double the batches per step."""


class SamplingSettings(Protocol):
    """What every method's sampling options have."""

    @property
    def seed(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def anchored(self) -> bool: ...
    @property
    def on_product(self) -> bool:
        """Whether a defect that lies beside the product is a fault."""

    @property
    def beyond(self) -> tuple[float, float]:
        """How far a window's masks go beyond usual sizes: factors of length, at most 1 and at least 1."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the dataset."""


class Adapter(Protocol):
    """A trained adapter on its base.

    Attributes:
        card: what was trained, see `model.adapter_card`.
        references: views of the real defects at their photographs' own scale.
        placements: where these views lay.
    """

    card: dict[str, Any]
    references: list[Pair]
    placements: list[Placement]

    @property
    def base(self) -> Base: ...
    @property
    def resolution(self) -> int:
        """Side of the square that the model sees, pixels."""

    def references_of(self, defect: str | None) -> list[Pair]:
        """Return the references of a defect type; None stands for the only one."""


class DecodedPair(Protocol):
    """A sampled pair that is complete except for work that needs no network."""

    @property
    def index(self) -> int: ...
    def to_candidate(self) -> Candidate:
        """Tidy its mask and place it on its normal image, if it has one."""


def always(_: int) -> bool:
    """Return that every candidate is needed."""
    return True


class Sampler(Protocol):
    """A request made ready: all that is the same for all of its batches, computed once.

    Attributes:
        budget: how many pairs fit in memory together; learnt while sampling.
    """

    @property
    def budget(self) -> BatchBudget: ...
    def decoded(
        self, start: int, stop: int, is_needed: Callable[[int], bool] = always
    ) -> Generator[Progress | DecodedPair, None, None]:
        """Sample candidates `start` to `stop - 1` in order; each depends on the request and its index alone.

        Args:
            is_needed: asked with an index before it is sampled; those that are not may be left out.
        """


_Adapter = TypeVar("_Adapter", bound=Adapter)
_Training = TypeVar("_Training", bound=TrainingSettings)
_Sampling = TypeVar("_Sampling", bound=SamplingSettings)


@dataclass(frozen=True, slots=True)
class DefectType:
    """The few-shot pairs of one type of defect."""

    name: str
    pairs: Sequence[Pair]


@dataclass(frozen=True, slots=True)
class TrainingRequest(Generic[_Training]):
    """All that decides what is trained.

    Attributes:
        settings: of the method, resolved for the base.
        networks: mask networks; `part` is adapted to the pairs, `object` finds products.
        normals: good parts to learn from.
        others: further defect types, for methods that learn several in one adapter.
        brightness: the values that became black and white in pictures with more than 8 bits; None if there were none.
    """

    base: Base
    pairs: Sequence[Pair]
    settings: _Training
    object_name: str
    defect_name: str
    networks: MaskNetworks
    normals: Sequence[NormalImage] = ()
    method: str = DEFAULT_METHOD
    others: Sequence[DefectType] = ()
    brightness: Range | None = None

    def typed_pairs(self) -> tuple[list[str], list[Pair], list[int]]:
        """Return the names of all defect types, their pairs one after the other, and the number of each one's type."""
        types = [DefectType(self.defect_name, self.pairs), *self.others]
        numbered = [(pair, number) for number, each in enumerate(types) for pair in each.pairs]
        return [each.name for each in types], [pair for pair, _ in numbered], [number for _, number in numbered]


TrainingCallback = CheckpointCallback[Adapter]
"""Watches the training of an adapter."""


class Method(Protocol[_Adapter, _Training, _Sampling]):
    """A method of generating pairs from a few real ones."""

    @property
    def copies(self) -> bool:
        """Return whether its pairs are copies of real defects by design, so that being one is no reason to reject."""

    def resolve_training(self, base: Base, options: Mapping[str, Any]) -> _Training:
        """Fill in the method's defaults and the base's recommendations where an option was not chosen.

        Raises:
            UsageError: naming every value that cannot be.
        """

    def check_training(self, request: TrainingRequest[_Training]) -> list[str]:
        """Find what a training lacks before it begins; returns notes for the user.

        Raises:
            UsageError: naming everything that is missing.
        """

    def train(
        self,
        request: TrainingRequest[_Training],
        target: Path,
        workspace: Path,
        *,
        callback: TrainingCallback | None = None,
    ) -> Iterator[Progress]:
        """Train an adapter and save it as the folder `target`, going on from the newest checkpoint in `workspace`.

        A resumed training ends with the same weights, bit for bit, as one that was never interrupted.

        Raises:
            UsageError: the request cannot be trained.
            DivergedError: the loss is no finite number.
        """

    def load(self, folder: Path, base: Base) -> _Adapter:
        """Load an adapter onto the base it was trained on.

        Raises:
            UsageError: naming what differs: another base, missing or surplus weights, missing files.
        """

    def weight_files(self, card: Mapping[str, Any]) -> list[str]:
        """List the files with weights that an adapter of this card must have."""

    def resolve_sampling(
        self, base: Base, options: Mapping[str, Any], *, has_normals: bool, adapter: _Adapter | None
    ) -> _Sampling:
        """Fill in the defaults that suit base and adapter where an option was not chosen.

        Args:
            adapter: None where it could not be loaded, to find what else is wrong.
            has_normals: whether normal images are given.

        Raises:
            UsageError: naming every value that cannot be.
        """

    def check_sampling(
        self, adapter: _Adapter, settings: _Sampling, *, has_normals: bool, has_object_net: bool
    ) -> None:
        """Find what adapter and settings need and do not get.

        Raises:
            UsageError: naming everything that is missing.
        """

    def prepare(
        self,
        adapter: _Adapter,
        settings: _Sampling,
        *,
        normals: Sequence[NormalImage] = (),
        object_net: U2Net | None = None,
        places: Places | None = None,
        plan: Plan | None = None,
        compiles: bool = False,
    ) -> Sampler:
        """Make a request ready.

        Args:
            normals: defect-free images to generate on.
            object_net: finds products.
            places: where the user wants defects, for methods that take places.
            plan: which candidate is of which defect type, and fills which given mask; by default they take turns.
            compiles: whether the process lives long enough for compiling on a GPU to pay.

        Raises:
            UsageError: as `check_sampling`.
        """
