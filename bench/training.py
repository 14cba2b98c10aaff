"""Measures training: a step of the reference form, ours, and ours without each optimisation.

Every form starts from the same weights and draws. Crops are cut and, for ours, encoded before the clock starts, since
this happens once per training; the reference form encodes its images in every step, as the released code does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.hardware import count_operations, full_mantissas, peak_memory, timed
from bench.model_report import Agreement, Results
from bench.sizes import Subject, awaken
from bench.timebox import Timebox
from model.data.pixels import to_pixels
from model.diffusion.noise_schedule import draw_timesteps
from model.diffusion.vae import encode
from model.dualanodiff.config import resolve_config
from model.dualanodiff.latent_dataset import Crops, LatentDataset, cut_crops, encode_crops
from model.dualanodiff.loss import embedded_prompts, training_loss
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.reference import ReferenceDenoiser, reference_loss
from model.dualanodiff.unet import ForwardOptions
from model.pretrain.procedural.samples import DEFECT, OBJECT
from model.runtime.seeding import step_generator
from service.core.options.dualanodiff import TrainingConfig

STEPS = 3
"""Timed steps per round."""

VIEWS = 4
"""Crops per pair: enough to fill any batch."""

LOSS = 1e-4
"""Largest difference of losses in fp32, relative to the reference form's."""

REFERENCE = "reference form"

Loss = Callable[[int], Tensor]
"""Step number → loss, with gradients."""

Learning = tuple[Loss, list[nn.Parameter]]
"""The loss, and the trained parameters."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of a training step: numbers of crops, `(B,)` timesteps, `(2, B, C, h, w)` noise."""

    chosen: Tensor
    timesteps: Tensor
    noise: Tensor


def draws_of_step(model: DualAnoDiffModel, dataset: LatentDataset, generator: torch.Generator) -> Draws:
    """Draw what `training_loss` draws with the same generator, for the reference form."""
    batch = model.config.batch
    chosen = torch.randint(dataset.latents.shape[1], (batch,), generator=generator)
    timesteps = draw_timesteps(batch, model.schedule.steps, generator).to(model.device)
    noise = torch.randn((2, batch, *dataset.latents.shape[2:]), generator=generator).to(model.device)
    return Draws(chosen, timesteps, noise)


@dataclass(frozen=True, slots=True)
class Material:
    """Training data of every form: `(2, V, 3, r, r)` pixels of images and parts, and their latents."""

    pixels: Tensor
    dataset: LatentDataset


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms to compare.

    Attributes:
        name: name of its row in the table.
        config: training settings.
        learning: makes the loss of a step from model and material, and returns the trained parameters.
        fused: whether the optimiser is a single kernel; otherwise PyTorch's default, which is not on a CPU.
        against: name of the row that its speed is divided by.
    """

    name: str
    config: TrainingConfig
    learning: Callable[[DualAnoDiffModel, Material], Learning]
    fused: bool
    against: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The forms to compare, and how.

    Attributes:
        config: settings of our forms.
        forms: the reference form, then ours in the order of importance.
        encoding: peak of used bytes while crops are encoded, with which every training of ours starts.
        operations: what determines them → operations of a step. Counting takes longer than a step.
    """

    config: TrainingConfig
    material: Material
    forms: list[Form]
    encoding: int
    operations: dict[tuple[Any, ...], int] = field(default_factory=dict)


def compare(subject: Subject, batch: int | None, *, headline: bool = False) -> Comparison:
    """Choose the forms for a base, and make their training data.

    Args:
        batch: pairs per step; None for the base's recommendation.
        headline: whether to leave out the rows without an optimisation or with other options.
    """
    base = subject.adapter.model.base
    # Loss weights are an addition of ours; the comparison uses the paper's loss.
    config = resolve_config(base, {"batch": batch, "views": VIEWS, "defect_weight": 0.0, "seed": 1})
    crops = cut_crops(subject.pairs, config)
    with peak_memory(base.device.type) as memory:
        dataset = _dataset(encode_crops(base, crops))
    forms = list(_forms(config))
    if not headline:
        forms += _changed(config, base.device.type)
    return Comparison(config, Material(_pixels(crops), dataset), forms, memory.peak)


def training_round(
    results: Results, subject: Subject, plan: Comparison, box: Timebox, turn: int, save: Callable[[], None]
) -> None:
    """Measure all forms once, as far as time allows.

    Args:
        turn: number of the round; the first round also compares the losses.
        save: called after every row.
    """
    for form in plan.forms:
        name = f"training, {form.name}"
        if not box.allows(name, f"training, {form.against}"):
            continue
        with box.timing(name, f"round {turn + 1}: {name}"):
            _measure(results, subject, form, plan)
        if turn == 0 and form is plan.forms[1]:
            results.agreements.append(_agreement(subject, plan.config, plan.material))
        save()


def _forms(config: TrainingConfig) -> Iterator[Form]:
    """Yield the reference form, then ours doing the same, then ours in half precision."""
    full = replace(config, precision="fp32")
    same = "ours, fp32"
    yield Form(REFERENCE, full, _reference, fused=False, against="")
    yield Form(same, full, _ours, fused=True, against=REFERENCE)
    if config.precision != "fp32":
        yield Form(f"ours, {config.precision}", config, _ours, fused=True, against=same)


def _changed(config: TrainingConfig, device: str) -> Iterator[Form]:
    """Yield our form in default precision without one optimisation at a time, then with other options."""
    ours = f"ours, {config.precision}"
    yield Form("… branches one after the other, SAIM over two tokens", config, _interleaved, fused=True, against=ours)
    yield Form("… pictures encoded in every step", config, _encoding, fused=True, against=ours)
    yield Form("… optimiser as PyTorch's comes", config, _ours, fused=False, against=ours)
    kept = "text encoder not trained"
    yield Form(kept, replace(config, text_rank=0), _ours, fused=True, against=ours)
    yield Form("… prompts embedded in every step", replace(config, text_rank=0), _reading, fused=True, against=kept)
    if device == "cuda":
        saving = replace(config, gradient_checkpointing=True)
        yield Form("gradient checkpointing", saving, _ours, fused=True, against=ours)


def _measure(results: Results, subject: Subject, form: Form, plan: Comparison) -> None:
    device = subject.adapter.model.device.type
    row = results.row(results.training, form.name, form.config.precision, form.against)
    with peak_memory(device) as memory:
        model = _model(subject, form.config)
        loss, parameters = form.learning(model, plan.material)
        optimizer = torch.optim.AdamW(parameters, lr=form.config.lr, weight_decay=1e-2, fused=form.fused or None)
        kind = (form.learning, form.config.text_rank, form.config.gradient_checkpointing)
        if kind not in plan.operations:
            plan.operations[kind] = count_operations(lambda: loss(0).backward())
        row.operations = plan.operations[kind]
        steps = iter(range(STEPS + 1))
        before = time.process_time()
        taken = timed(device, lambda: _step(loss, next(steps), optimizer, parameters, form.config), STEPS)
        row.seconds.append(sorted(taken)[len(taken) // 2])
        if device == "cpu":
            row.processor.append((time.process_time() - before) / (STEPS + 1))
    row.memory = max(row.memory, memory.peak, 0 if form.name == REFERENCE else plan.encoding)


def _step(
    loss: Loss, number: int, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], config: TrainingConfig
) -> None:
    loss(number).backward()
    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _model(subject: Subject, config: TrainingConfig) -> DualAnoDiffModel:
    model = build_model(subject.adapter.model.base, config, OBJECT, DEFECT)
    awaken(model)
    model.denoiser.train()
    model.text_encoder.train()
    return model


def _reference(model: DualAnoDiffModel, material: Material) -> Learning:
    denoiser = ReferenceDenoiser(model)

    def loss(number: int) -> Tensor:
        drawn = draws_of_step(model, material.dataset, step_generator(model.config.seed, number))
        pixels = material.pixels[:, drawn.chosen].to(model.device)
        return reference_loss(model, denoiser, pixels, drawn.timesteps, drawn.noise)

    return loss, denoiser.trained()


def _ours(model: DualAnoDiffModel, material: Material) -> Learning:
    text = None if model.config.text_rank else embedded_prompts(model).detach()
    return _loss(model, material, text), list(model.trainable().values())


def _reading(model: DualAnoDiffModel, material: Material) -> Learning:
    """Make our loss with prompts embedded in every step, whether the text encoder is trained or not."""
    return _loss(model, material), list(model.trainable().values())


def _loss(model: DualAnoDiffModel, material: Material, text: Tensor | None = None) -> Loss:
    return lambda number: training_loss(model, material.dataset, step_generator(model.config.seed, number), text)


def _encoding(model: DualAnoDiffModel, material: Material) -> Learning:
    ours, parameters = _ours(model, material)

    def loss(number: int) -> Tensor:
        for images in material.pixels[:, : model.config.batch]:
            encode(model.vae, images)
        return ours(number)

    return loss, parameters


def _interleaved(model: DualAnoDiffModel, material: Material) -> Learning:
    plain = _Plain(model)
    denoiser: Any = plain
    return _loss(replace(model, denoiser=denoiser), material), plain.denoiser.trained()


class _Plain(nn.Module):
    """Wraps the reference form's denoiser in the interface of ours."""

    def __init__(self, model: DualAnoDiffModel) -> None:
        super().__init__()
        self.denoiser = ReferenceDenoiser(model)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, run: ForwardOptions | None = None) -> Tensor:
        out: Tensor = self.denoiser(latents, timesteps, text)
        return out


def _agreement(subject: Subject, config: TrainingConfig, material: Material) -> Agreement:
    """Compare both losses of the first step in fp32, without TF32's short mantissas."""
    model = _model(subject, replace(config, precision="fp32"))
    with torch.no_grad(), full_mantissas():
        theirs, ours = (float(form(model, material)[0](0)) for form in (_reference, _ours))
    return Agreement("fp32, loss of a training step, relative", abs(ours - theirs) / theirs, LOSS)


def _pixels(crops: Crops) -> Tensor:
    return torch.stack([to_pixels(crops.images), to_pixels(crops.parts)])


def _dataset(encoding: Any) -> LatentDataset:
    """Run the generator and return its value."""
    while True:
        try:
            next(encoding)
        except StopIteration as stop:
            dataset: LatentDataset = stop.value
            return dataset
