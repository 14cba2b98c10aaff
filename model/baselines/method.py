"""Offers the baselines as methods, each by its drawing function; both keep the real pairs instead of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from model.baselines import copy_paste, perlin
from model.baselines.adapter import BaselineAdapter, load_adapter, make_card, save_adapter
from model.baselines.sampler import BaselineSampler, Draft, Scene
from model.data.placement import NormalImage
from model.data.plan import Plan
from model.data.references import make_references
from model.data.two_levels import find_two_levels
from model.diffusion.base import Base
from model.masks.objects import Objects
from model.masks.u2net import U2Net, for_inference
from model.method import TrainingCallback, TrainingRequest
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Meter, Progress
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.baselines import CollectionConfig, CopyPasteConfig, PerlinConfig
from service.core.options.declaration import choose, chosen
from service.core.options.methods import METHOD_OPTIONS
from service.core.places import Places, refuse_places

_Config = TypeVar("_Config", CopyPasteConfig, PerlinConfig)


@dataclass(frozen=True, slots=True)
class Baseline(Generic[_Config]):
    """Implements `model.method.Method`.

    Attributes:
        name: the method's name, for cards and messages.
        options: declares the options of sampling.
        draw: makes a candidate from a draft and these options.
        copies: whether candidates are copies of real defects.
    """

    name: str
    options: type[_Config]
    draw: Callable[[Draft, _Config], Candidate]
    copies: bool

    def resolve_training(self, base: Base, options: Mapping[str, Any]) -> CollectionConfig:
        recommended = METHOD_OPTIONS[self.name].recommended("training", base.few_shot)
        config = choose(CollectionConfig, f"{self.name} training options", recommended, chosen(options))
        return replace(config, resolution=config.resolution or base.resolution)

    def check_training(self, request: TrainingRequest[CollectionConfig]) -> list[str]:
        return []

    def train(
        self,
        request: TrainingRequest[CollectionConfig],
        target: Path,
        workspace: Path,
        *,
        callback: TrainingCallback | None = None,
    ) -> Iterator[Progress]:
        config, pairs = request.settings, request.pairs
        meter = Meter("collect", len(pairs), "pairs")
        references, placements = make_references(pairs, config.view, config.resolution, config.seed)
        names = request.object_name, request.defect_name
        card = make_card(self.name, request.base, config, pairs, placements, names, request.brightness)
        save_adapter(target, card, pairs, references)
        yield meter.report(len(pairs))

    def load(self, folder: Path, base: Base) -> BaselineAdapter:
        return load_adapter(folder, base)

    def weight_files(self, card: Mapping[str, Any]) -> list[str]:
        return []

    def resolve_sampling(
        self, base: Base, options: Mapping[str, Any], *, has_normals: bool, adapter: BaselineAdapter | None
    ) -> _Config:
        settings = choose(self.options, f"{self.name} sampling options", chosen(options))
        if not has_normals:
            raise UsageError(f"{self.name} lays defects on normal images, but none were given: provide normals")
        return settings

    def check_sampling(
        self, adapter: BaselineAdapter, settings: _Config, *, has_normals: bool, has_object_net: bool
    ) -> None:
        if not has_normals:
            raise UsageError(f"{self.name} lays defects on normal images, but none were given: provide normals")

    def prepare(
        self,
        adapter: BaselineAdapter,
        settings: _Config,
        *,
        normals: Sequence[NormalImage] = (),
        object_net: U2Net | None = None,
        places: Places | None = None,
        plan: Plan | None = None,
        compiles: bool = False,
    ) -> BaselineSampler:
        refuse_places(places, self.name, settings.as_dict())
        self.check_sampling(adapter, settings, has_normals=bool(normals), has_object_net=object_net is not None)
        objects, levels = None, find_two_levels(adapter.pairs)
        if object_net is not None and levels is None:  # of a pattern, a network sees a part
            objects = Objects(for_inference(object_net, torch.float32), normals)
        scene = Scene(adapter, normals, objects, levels)
        return BaselineSampler(
            scene, settings.seed, lambda draft: self.draw(draft, settings), BatchBudget(settings.batch)
        )


COPY_PASTE = Baseline("copy-paste", CopyPasteConfig, copy_paste.draw, copies=True)
PERLIN = Baseline("perlin", PerlinConfig, perlin.draw, copies=False)
