"""Offers DualAnoDiff as a method: two-branch latent diffusion of image and anomaly part (see `README.md`)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.data.placement import NormalImage
from model.data.plan import Plan
from model.diffusion.base import Base
from model.diffusion.stored_weights import LORA_FILE
from model.dualanodiff.adapter import (
    DualAnoDiffAdapter,
    load_adapter,
    make_card,
    make_references,
    save_adapter,
)
from model.dualanodiff.bcm import check_backgrounds
from model.dualanodiff.config import resolve_config
from model.dualanodiff.model import build_model
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.cuda_graphs import Compiler
from model.dualanodiff.sampling.sampler import Sampler, missing_for_sampling, prepare_sampling
from model.dualanodiff.trainer import train
from model.dualanodiff.unet import ANOMALY, GLOBAL
from model.masks.u2net import U2Net
from model.method import TrainingCallback, TrainingRequest
from model.runtime.progress import Progress
from model.training.clock import TrainingClock
from model.training.early_stopping import TrainingResult
from service.core.errors import UsageError
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.places import Places


class DualAnoDiff:
    """Implements `model.method.Method`."""

    copies = False

    def resolve_training(self, base: Base, options: Mapping[str, Any]) -> TrainingConfig:
        return resolve_config(base, options)

    def check_training(self, request: TrainingRequest[TrainingConfig]) -> list[str]:
        if request.settings.bcm and request.networks.object is None:
            raise UsageError(
                f"bcm needs a network that finds objects, and base {request.base.name} has none: "
                "provide one with --object-net, or use a base that has one"
            )
        notes = []
        if request.settings.bcm and request.networks.object is not None:
            notes += check_backgrounds(request.pairs, request.networks.object, request.settings)
        if request.normals and request.settings.steps and not request.settings.composites:
            note = f"the normals are not used in training: base {request.base.name} recommends no composites"
            notes.append(f"{note}; set composites to use them")
        if request.networks.part is None:
            note = f"base {request.base.name} has no network that finds masks on generated parts"
            notes.append(f"{note}: they are found by the distance from grey; a U²-Net can be named instead")
        return notes

    def train(
        self,
        request: TrainingRequest[TrainingConfig],
        target: Path,
        workspace: Path,
        *,
        callback: TrainingCallback | None = None,
    ) -> Iterator[Progress]:
        config, names = request.settings, (request.object_name, request.defect_name)
        if config.composites and config.steps and not request.normals:
            config = replace(config, composites=0)
            note = "no normals were given: training uses the real pairs alone"
            yield Progress("compose", 0, 0, "composites", note=note)
        clock = TrainingClock(workspace)
        model = build_model(request.base, config, *names)
        # A copy, because the caller may use the network for the next training.
        mask_net = copy.deepcopy(request.networks.part)
        references, placements = make_references(request.pairs, config)
        uses_normals = config.composites and config.steps
        learned = {normal.name: normal.image for normal in request.normals} if uses_normals else {}
        describe = functools.partial(
            make_card, model, request.pairs, placements, names=names, normals=learned, brightness=request.brightness
        )
        result = TrainingResult([], 0, 0)
        unfinished = DualAnoDiffAdapter(model, describe(result), request.networks.part, references, placements)
        for item in train(
            unfinished,
            request.pairs,
            workspace,
            normals=request.normals,
            object_net=request.networks.object,
            mask_net=mask_net,
            callback=callback,
        ):
            if isinstance(item, Progress):
                clock.keep()
                yield item
            else:
                result = item
        run = clock.record(request.base.device)
        save_adapter(target, model, describe(result), references, mask_net=mask_net, run=run)

    def load(self, folder: Path, base: Base) -> DualAnoDiffAdapter:
        return load_adapter(folder, base)

    def weight_files(self, card: Mapping[str, Any]) -> list[str]:
        config = card["config"]
        files = [f"{GLOBAL}/{LORA_FILE}", f"{ANOMALY}/{LORA_FILE}"]
        if config.get("saim", True):  # adapters made before it was an option have SAIM
            files.append("interaction.safetensors")
        return [*files, "background.safetensors"] if config["bcm"] else files

    def resolve_sampling(
        self, base: Base, options: Mapping[str, Any], *, has_normals: bool, adapter: DualAnoDiffAdapter | None
    ) -> SamplingConfig:
        return resolve_sampling(
            base,
            options,
            has_normals=has_normals,
            has_mask_net=adapter is None or adapter.mask_net is not None,
            bcm=adapter is not None and adapter.model.config.bcm,
        )

    def check_sampling(
        self, adapter: DualAnoDiffAdapter, settings: SamplingConfig, *, has_normals: bool, has_object_net: bool
    ) -> None:
        missing = missing_for_sampling(adapter, settings, has_normals=has_normals, has_object_net=has_object_net)
        if missing:
            raise UsageError(missing)

    def prepare(
        self,
        adapter: DualAnoDiffAdapter,
        settings: SamplingConfig,
        *,
        normals: Sequence[NormalImage] = (),
        object_net: U2Net | None = None,
        places: Places | None = None,
        plan: Plan | None = None,
        compiles: bool = False,
    ) -> Sampler:
        compiler = _compiler() if compiles and adapter.base.device.type == "cuda" else None
        return prepare_sampling(
            adapter, settings, normals=normals, object_net=object_net, places=places, compiler=compiler
        )


@functools.cache
def _compiler() -> Compiler:
    """Return the compiler that all adapters of this process share."""
    return Compiler()
