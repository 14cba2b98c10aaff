"""Offers AnomalyDiffusion as a method: masks first, filled on normal photographs (see `README.md`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.anomalydiffusion.adapter import (
    MASK_FILE,
    MATCHED,
    AnomalyDiffusionAdapter,
    RealMask,
    load_adapter,
    make_card,
    save_adapter,
)
from model.anomalydiffusion.calibration import match_contrast
from model.anomalydiffusion.config import NO_NORMALS, resolve_sampling, resolve_training
from model.anomalydiffusion.mask_generator import MASK_WORDS, new_mask_words, train_mask_words
from model.anomalydiffusion.model import FILL_ADAPTER, build_model
from model.anomalydiffusion.sampling.sampler import Sampler, prepare_sampling
from model.anomalydiffusion.start import take_start
from model.anomalydiffusion.trainer import train
from model.anomalydiffusion.words import ANOMALY_WORDS, PLACE_WORDS, spliced_prompt
from model.data.placement import NormalImage
from model.data.plan import Plan
from model.data.references import make_references
from model.diffusion.base import Base
from model.diffusion.stored_weights import LORA_FILE
from model.masks.u2net import U2Net
from model.method import TrainingCallback, TrainingRequest
from model.runtime.progress import Progress
from model.training.clock import TrainingClock
from model.training.early_stopping import TrainingResult
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig, AnomalyTrainingConfig
from service.core.options.combinations import UNLEARNED
from service.core.places import Places


class AnomalyDiffusion:
    """Implements `model.method.Method`."""

    copies = False

    def resolve_training(self, base: Base, options: Mapping[str, Any]) -> AnomalyTrainingConfig:
        return resolve_training(base, options)

    def check_training(self, request: TrainingRequest[AnomalyTrainingConfig]) -> list[str]:
        spliced_prompt(request.base.tokenizer, ANOMALY_WORDS + (PLACE_WORDS if request.settings.spatial else 0))
        if request.settings.mask_generator_steps:
            spliced_prompt(request.base.tokenizer, MASK_WORDS)
        notes = []
        if request.normals and request.settings.steps and not request.settings.composite_views:
            notes.append(
                "the normals are not learned from: defects are drawn on them, to compare and to generate pairs; "
                "set composite_views to learn from real defects copied to them"
            )
        if request.settings.composite_views and request.settings.steps and not request.normals:
            notes.append("no normals were given: training uses the real pairs alone")
        if request.settings.match_contrast and request.settings.steps and not request.normals:
            notes.append(
                "no normals were given, so training cannot choose how far defects are pushed away from the good "
                "surface: the contrast of pairs is still scaled to that of real defects, but some may come out fainter"
            )
        return notes

    def train(
        self,
        request: TrainingRequest[AnomalyTrainingConfig],
        target: Path,
        workspace: Path,
        *,
        callback: TrainingCallback | None = None,
    ) -> Iterator[Progress]:
        config = request.settings
        if not request.normals:
            config = replace(config, composite_views=0)
        clock = TrainingClock(workspace)
        names, pairs, types = request.typed_pairs()
        model = build_model(request.base, config, names)
        take_start(model)
        references, placements = make_references(pairs, config.view, config.resolution, config.seed)

        def described(result: TrainingResult) -> dict[str, Any]:
            learned = [normal for normal in request.normals if normal.name in result.normals]
            names = request.object_name, request.brightness
            return make_card(model, pairs, types, placements, result, *names, normals=learned)

        result = TrainingResult([], 0, 0)
        masks = [RealMask(kind, pair.mask) for kind, pair in zip(types, pairs, strict=True)]
        words = new_mask_words(model) if config.mask_generator_steps else None
        adapter = AnomalyDiffusionAdapter(model, described(result), masks, references, placements, words)
        training = train(
            adapter,
            pairs,
            types,
            workspace,
            normals=request.normals,
            object_net=request.networks.object,
            callback=callback,
            keep_last=words is not None,
        )
        for item in training:
            if isinstance(item, Progress):
                clock.keep()
                yield item
            else:
                result = item
        if words is not None:
            yield from train_mask_words(words, model, pairs, types, workspace / "masks")
        card = described(result)
        if config.match_contrast and config.steps and request.normals:
            model.networks().eval()
            drawn = replace(adapter, card=card)
            card[MATCHED] = yield from match_contrast(drawn, pairs, types, request.normals, request.networks.object)
        save_adapter(target, replace(adapter, card=card), clock.record(request.base.device))

    def load(self, folder: Path, base: Base) -> AnomalyDiffusionAdapter:
        return load_adapter(folder, base)

    def weight_files(self, card: Mapping[str, Any]) -> list[str]:
        config = card["config"]
        files = ["embeddings.safetensors", *([MASK_FILE] if config["mask_generator_steps"] else [])]
        if config["spatial"]:
            files.append("spatial.safetensors")
        if config.get("inpainting"):
            files.append("inpainting.safetensors")
        return [*files, f"{FILL_ADAPTER}/{LORA_FILE}"] if config["fill_rank"] else files

    def resolve_sampling(
        self, base: Base, options: Mapping[str, Any], *, has_normals: bool, adapter: AnomalyDiffusionAdapter | None
    ) -> AnomalySamplingConfig:
        return resolve_sampling(base, options, has_normals=has_normals)

    def check_sampling(
        self,
        adapter: AnomalyDiffusionAdapter,
        settings: AnomalySamplingConfig,
        *,
        has_normals: bool,
        has_object_net: bool,
    ) -> None:
        problems = [] if has_normals else [NO_NORMALS]
        if settings.mask_source == "learned" and adapter.mask_words is None:
            problems.append(UNLEARNED)
        if problems:
            raise UsageError(problems)

    def prepare(
        self,
        adapter: AnomalyDiffusionAdapter,
        settings: AnomalySamplingConfig,
        *,
        normals: Sequence[NormalImage] = (),
        object_net: U2Net | None = None,
        places: Places | None = None,
        plan: Plan | None = None,
        compiles: bool = False,
    ) -> Sampler:
        self.check_sampling(adapter, settings, has_normals=bool(normals), has_object_net=object_net is not None)
        return prepare_sampling(adapter, settings, normals=normals, object_net=object_net, places=places, plan=plan)
