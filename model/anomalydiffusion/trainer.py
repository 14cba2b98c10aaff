"""Trains one adapter on a few pairs of one or several defect types, on a frozen base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.composites import cut_composites
from model.anomalydiffusion.latent_dataset import cut_crops, encode_crops
from model.anomalydiffusion.loss import held_out_loss, training_loss
from model.data.placement import NormalImage
from model.masks.u2net import U2Net
from model.method import TrainingCallback
from model.runtime.progress import Progress
from model.training.early_stopping import TrainingResult, spare_pair
from model.training.loop import HeldOut, TrainingRun, optimise
from model.types import Pair


def train(
    adapter: AnomalyDiffusionAdapter,
    pairs: Sequence[Pair],
    types: Sequence[int],
    workspace: Path,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
    callback: TrainingCallback | None = None,
    keep_last: bool = False,
) -> Iterator[Progress | TrainingResult]:
    """Train the adapter's model in place, from the newest checkpoint in `workspace` on.

    A resumed training gives the same weights, bit for bit, as an uninterrupted one, because crops, timesteps and noise
    of a step depend only on the seed and the step number.

    Args:
        types: number of each pair's defect type.
        workspace: folder of the checkpoints.
        normals: good parts to make composites on; none are made without.
        object_net: finds products on them.
        callback: asked whether to make extra checkpoints, and shown the adapter at every checkpoint.
        keep_last: whether long work follows, which makes a checkpoint of the last step worthwhile.

    Yields:
        Progress, and finally the result.

    Raises:
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    model, config = adapter.model, adapter.model.config
    if not config.steps:
        yield TrainingResult([], 0, 0)
        return
    spare = spare_pair(types, config.steps, config.seed) if config.early_stop else None
    crops, learned = cut_crops(pairs, types, config), list[NormalImage]()
    if normals and config.composite_views:
        copied = [number for number in range(len(pairs)) if number != spare]
        some, of_types = [pairs[number] for number in copied], [types[number] for number in copied]
        composites, learned = yield from cut_composites(some, of_types, normals, config, object_net)
        crops += composites
    dataset = yield from encode_crops(model.base, crops)
    del crops
    held_out = None
    if spare is not None:
        dataset, held = dataset.without(slice(spare * config.views, (spare + 1) * config.views))
        held_out = HeldOut(pairs[spare].name, lambda: held_out_loss(model, held))
    run = TrainingRun(
        config,
        model.trainable(),
        model.groups(),
        lambda generator: training_loss(model, dataset, generator),
        model.networks().train,
        held_out,
    )
    run.resume(workspace)
    yield from optimise(run, adapter, workspace, callback, keep_last=keep_last)
    yield replace(run.finish(), normals=tuple(normal.name for normal in learned))
