"""Trains one adapter on a few pairs: both branches' LoRAs, SAIM, BCM and the text LoRA, on a frozen base."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from torch import nn

from model.data.placement import NormalImage
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.bcm import product_masks
from model.dualanodiff.composites import make_composites, mixed_dataset
from model.dualanodiff.latent_dataset import Crops, LatentDataset, cut_crops, encode_crops
from model.dualanodiff.loss import embedded_prompts, held_out_loss, training_loss
from model.dualanodiff.model import DualAnoDiffModel
from model.masks.finetune import adapt_u2net
from model.masks.u2net import U2Net
from model.method import TrainingCallback
from model.runtime import switches
from model.runtime.progress import Progress
from model.runtime.switches import Switch
from model.training.early_stopping import TrainingResult, spare_pair
from model.training.loop import HeldOut, TrainingRun, optimise
from model.types import Pair
from service.core.errors import UsageError


def train(
    adapter: DualAnoDiffAdapter,
    pairs: Sequence[Pair],
    workspace: Path,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
    mask_net: U2Net | None = None,
    callback: TrainingCallback | None = None,
) -> Iterator[Progress | TrainingResult]:
    """Train the adapter's model (and `mask_net`) in place, from the newest checkpoint in `workspace` on.

    A resumed training gives the same weights, bit for bit, as an uninterrupted one, because crops, timesteps and noise
    of a step depend only on the seed and the step number. With 0 steps the base stays as it is, and only the mask
    network is adapted.

    Args:
        pairs: the few-shot examples.
        workspace: folder of the checkpoints.
        normals: defect-free images, for composites; required with `config.composites`.
        object_net: finds objects, for BCM's backgrounds and for placing composites; required with `config.bcm`.
        mask_net: fine-tuned on the pairs' parts and masks at the end; None to skip this.
        callback: asked whether to make extra checkpoints, and shown the adapter at every checkpoint.

    Yields:
        Progress, and finally the result.

    Raises:
        UsageError: if BCM is on without a network that finds objects.
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    model, config = adapter.model, adapter.model.config
    if config.bcm and object_net is None:
        raise UsageError(
            "background compensation (bcm) needs a U²-Net that finds objects, but this base has none: provide one"
        )
    products = product_masks(pairs, object_net) if config.bcm and object_net is not None else None
    crops = cut_crops(pairs, config, products)
    adapts = mask_net is not None and config.mask_steps > 0
    result = TrainingResult([], 0, 0)
    if config.steps:
        run = yield from _prepare(model, pairs, crops, normals, object_net)
        run.resume(workspace)
        yield from optimise(run, adapter, workspace, callback, keep_last=adapts)
        result = run.finish()
    if mask_net is not None and adapts:
        yield from adapt_u2net(mask_net, crops.parts, crops.masks, seed=config.seed, steps=config.mask_steps)
    yield result


def _prepare(
    model: DualAnoDiffModel,
    pairs: Sequence[Pair],
    crops: Crops,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> Generator[Progress, None, TrainingRun]:
    """Encode the crops, and what is made from normals; hold a pair out if that can stop the training early."""
    config = model.config
    held = made = None
    spare = spare_pair([0] * len(pairs), config.steps, config.seed) if config.early_stop else None
    if config.composites:
        learned = [pair for number, pair in enumerate(pairs) if number != spare]
        made = yield from make_composites(learned, normals, config, model.base.factor, object_net)
    all_crops = crops if made is None else crops + made.composites + made.good
    dataset = yield from encode_crops(model.base, all_crops)
    if spare is not None:
        dataset, held = dataset.without(slice(spare * config.views, (spare + 1) * config.views))
    if made is not None:
        dataset = mixed_dataset(dataset, len(made.good.images), len(made.composites.images), config)
    return _make_run(model, dataset, held, "" if spare is None else pairs[spare].name)


def _make_run(model: DualAnoDiffModel, dataset: LatentDataset, held: LatentDataset | None, name: str) -> TrainingRun:
    """Make the run of a training; `name` is the held-out pair's."""
    config = model.config
    kept = not config.text_rank and switches.on(Switch.KEPT_PROMPTS)
    text = embedded_prompts(model).detach() if kept else None

    networks = nn.ModuleList([model.denoiser, model.text_encoder])

    return TrainingRun(
        config,
        model.trainable(),
        [(model.lora_parameters(), config.lr), (model.interaction_parameters(), config.interaction_lr)],
        lambda generator: training_loss(model, dataset, generator, text),
        networks.train,
        None if held is None else HeldOut(name, lambda: held_out_loss(model, held, text)),
    )
