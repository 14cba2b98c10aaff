"""Few-shot training: it learns, goes on where it was interrupted, and is what its settings say."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.bcm import product_masks
from model.dualanodiff.latent_dataset import LatentDataset, cut_crops, encode_crops
from model.dualanodiff.loss import embedded_prompts, training_loss
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.method import Adapter
from model.runtime.progress import Progress
from model.runtime.seeding import step_generator
from model.training.checkpoint import list_checkpoints, read_record, read_tensors
from model.training.early_stopping import TrainingResult
from service.core.errors import DivergedError, UsageError
from tests.support.tiny_data import awaken, drawn_pair, half_seeing_u2net, last, tiny_config, tiny_u2net, train

PAIRS = [drawn_pair(0, 48, 40), drawn_pair(1, 33, 90)]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with background": {"bcm": True, "view": "window", "batch": 1, "accumulate": 2, "warmup": 3, "defect_weight": 0.25},
    "saving memory": {"bcm": True, "precision": "bf16", "gradient_checkpointing": True, "text_rank": 0},
}


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def built(base: Base, **chosen: Any) -> DualAnoDiffModel:
    return build_model(base, tiny_config(**chosen), "metal tile", "crack")


def bank_of(model: DualAnoDiffModel, count: int = len(PAIRS)) -> LatentDataset:
    """The encoded views of the first pairs."""
    pairs = PAIRS[:count]
    products = product_masks(pairs, half_seeing_u2net()) if model.config.bcm else None
    job = encode_crops(model.base, cut_crops(pairs, model.config, products))
    while True:
        try:
            next(job)
        except StopIteration as end:
            dataset: LatentDataset = end.value
            return dataset


def weights(model: DualAnoDiffModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.trainable().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def gradients(model: DualAnoDiffModel, dataset: LatentDataset, *seeds: int) -> dict[str, Tensor]:
    """Sum of the gradients of the batches with these numbers."""
    for seed in seeds:
        training_loss(model, dataset, step_generator(model.config.seed, seed)).backward()
    found = {name: parameter.grad for name, parameter in model.trainable().items() if parameter.grad is not None}
    for parameter in model.trainable().values():
        parameter.grad = None
    return found


def average_loss(model: DualAnoDiffModel, dataset: LatentDataset) -> float:
    with torch.no_grad():
        losses = [training_loss(model, dataset, step_generator(99, number)) for number in range(6)]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("folder", ["tiny_base", "tiny_v_base"])
def test_one_pair_is_learnt_by_heart(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = built(
        load_base(str(request.getfixturevalue(folder))),
        lora_targets="all",
        rank=8,
        steps=20,
        batch=4,
        lr=1e-2,
        interaction_lr=1e-2,
        views=1,
        flip_horizontal=False,
        flip_vertical=False,
        checkpoint_every=1000,
    )
    dataset = bank_of(model, count=1)
    before = average_loss(model, dataset)
    last(train(model, PAIRS[:1], tmp_path))
    assert average_loss(model, dataset) < 0.7 * before


@pytest.mark.parametrize("options", OPTIONS)
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(base: Base, tmp_path: Path, options: str) -> None:
    chosen = {"steps": 6, "checkpoint_every": 3, **OPTIONS[options]}
    whole = built(base, **chosen)
    told = last(train(whole, PAIRS, tmp_path / "whole", object_net=tiny_u2net()))

    stopped = built(base, **chosen)
    for item in train(stopped, PAIRS, tmp_path / "cut", object_net=tiny_u2net()):
        if isinstance(item, Progress) and item.stage == "train" and item.completed:
            break
    assert [path.name for path in list_checkpoints(tmp_path / "cut")] == ["step-0000003"]
    resumed = built(base, **chosen)
    again = last(train(resumed, PAIRS, tmp_path / "cut", object_net=tiny_u2net()))
    assert same(weights(resumed), weights(whole))
    assert again == told
    assert [step for step, _ in told.curve] == [5, 6]


class Onlooker:
    """Wants a checkpoint after step 2, and notes the weights at each and what lies on disk when told."""

    def __init__(self, model: DualAnoDiffModel) -> None:
        self.model = model
        self.asked = 0
        self.reached_at: dict[int, dict[str, Tensor]] = {}
        self.stored: dict[int, dict[str, Tensor]] = {}

    def wants_checkpoint(self) -> bool:
        self.asked += 1
        return self.asked == 2

    def on_checkpoint(self, step: int, adapter: Adapter) -> None:
        assert not self.model.denoiser.training
        self.reached_at[step] = weights(self.model)

    def on_saved(self, step: int, checkpoint: Path) -> None:
        assert read_record(checkpoint)[0] == step
        self.stored[step] = read_tensors(checkpoint, "trainable")


def test_checkpoints_written_in_the_background_hold_the_weights_of_their_step(base: Base, tmp_path: Path) -> None:
    model = built(base, steps=6, checkpoint_every=3)
    onlooker = Onlooker(model)
    last(train(model, PAIRS, tmp_path, callback=onlooker))
    assert list(onlooker.stored) == list(onlooker.reached_at) == [2, 3]
    for step, found in onlooker.stored.items():
        assert same(found, onlooker.reached_at[step])
    assert not same(onlooker.stored[2], onlooker.stored[3])


def test_of_the_last_step_only_a_checkpoint_is_told(base: Base, tmp_path: Path) -> None:
    model = built(base, steps=3, checkpoint_every=3, mask_steps=1)
    onlooker = Onlooker(model)
    last(train(model, PAIRS, tmp_path, mask_net=tiny_u2net(), callback=onlooker))
    assert (list(onlooker.reached_at), list(onlooker.stored)) == ([2], [2, 3])


def test_what_every_step_reads_lies_where_the_model_computes(base: Base) -> None:
    unet, text_encoder = (copy.deepcopy(network).to("meta") for network in (base.unet, base.text_encoder))
    model = built(replace(base, unet=unet, text_encoder=text_encoder))
    assert model.tokens.device == model.empty.device == model.schedule.alphas_cumprod.device == model.device
    assert model.device.type == "meta"


def test_prompts_embedded_once_train_as_if_embedded_in_every_step(base: Base) -> None:
    model = built(base, text_rank=0, precision="bf16")
    awaken(model)
    dataset = bank_of(model)
    embedded = gradients(model, dataset, 0)
    training_loss(model, dataset, step_generator(0, 0), embedded_prompts(model).detach()).backward()
    for name, gradient in embedded.items():
        assert torch.equal(model.trainable()[name].grad, gradient), name


def test_another_seed_gives_other_weights_and_the_same_one_the_same(base: Base, tmp_path: Path) -> None:
    trained = []
    for number, seed in enumerate((3, 3, 4)):
        model = built(base, seed=seed, steps=2)
        last(train(model, PAIRS, tmp_path / str(number)))
        trained.append(weights(model))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_the_base_comes_out_as_it_went_in(base: Base, tmp_path: Path) -> None:
    parts = (base.unet, base.vae, base.text_encoder)
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    last(train(built(base, lora_targets="all"), PAIRS, tmp_path))
    for part, state in zip(parts, before, strict=True):
        assert same(dict(part.state_dict()), state)


@pytest.mark.parametrize("bcm", [False, True])
@pytest.mark.parametrize("targets", ["attention", "all"])
def test_checkpointing_activations_changes_no_gradient(base: Base, targets: str, *, bcm: bool) -> None:
    found = []
    for checkpointed in (False, True):
        model = built(base, lora_targets=targets, bcm=bcm, gradient_checkpointing=checkpointed)
        awaken(model)
        model.denoiser.train()
        found.append(gradients(model, bank_of(model), 0))
    assert found[0].keys() == found[1].keys() == model.trainable().keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_accumulated_batches_make_one_step_with_their_mean_gradient(base: Base, tmp_path: Path) -> None:
    model = built(base, steps=1, accumulate=2, clip_norm=1e9)
    reference = built(base, clip_norm=1e9)
    summed = gradients(reference, bank_of(reference), 0, 1)
    optimizer = torch.optim.AdamW(reference.trainable().values(), lr=1e-3, weight_decay=1e-2)
    for name, parameter in reference.trainable().items():
        parameter.grad = summed[name] / 2
    optimizer.step()
    last(train(model, PAIRS, tmp_path))
    for name, value in weights(model).items():
        torch.testing.assert_close(value, reference.trainable()[name].data, atol=1e-5, rtol=1e-4, msg=name)


def test_loras_and_saim_have_their_own_rates_and_warm_up(base: Base, tmp_path: Path) -> None:
    """Adam's first step moves the weights by the learning rate."""
    model = built(base, steps=1, warmup=4, lr=4e-3, interaction_lr=8e-3)
    before = weights(model)
    last(train(model, PAIRS, tmp_path))
    for kind, rate in (("/B", 1e-3), (".interaction.", 2e-3)):
        moves = [(value - before[name]).abs().max() for name, value in weights(model).items() if kind in name]
        assert float(torch.stack(moves).max()) == pytest.approx(rate, rel=0.05)


def test_half_precision_keeps_full_weights(base: Base, tmp_path: Path) -> None:
    model = built(base, precision="bf16", bcm=True, lora_targets="all", steps=1)
    curve = last(train(model, PAIRS, tmp_path, object_net=tiny_u2net())).curve
    assert {value.dtype for value in weights(model).values()} == {torch.float32}
    assert torch.isfinite(torch.tensor(curve)).all()
    full = built(base, precision="fp32", bcm=True, lora_targets="all")
    assert average_loss(built(base, precision="bf16", bcm=True), bank_of(full)) == pytest.approx(
        average_loss(full, bank_of(full)), rel=0.02
    )


@pytest.mark.parametrize("options", [{"bcm": True}, {"rank": 4}, {"lora_targets": "all"}])
def test_a_checkpoint_of_other_options_is_refused(base: Base, tmp_path: Path, options: dict[str, Any]) -> None:
    last(train(built(base), PAIRS, tmp_path))
    with pytest.raises(UsageError, match="the checkpoint was made with other options"):
        last(train(built(base, **options), PAIRS, tmp_path, object_net=tiny_u2net()))


def test_a_training_whose_loss_is_no_number_any_more_ends_there_and_says_what_to_change(
    base: Base, tmp_path: Path
) -> None:
    model = built(base, steps=400, lr=1e30, interaction_lr=1e30, checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"The training diverged: the loss was (nan|inf) by step \d+: lower lr"):
        list(train(model, PAIRS, tmp_path))
    # What is kept is from before.
    for checkpoint in list_checkpoints(tmp_path):
        assert read_tensors(checkpoint, "loss")["smooth"].isfinite()


def test_a_last_step_that_breaks_the_weights_fails_the_training_though_no_loss_showed_it(
    base: Base, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"weights were no finite numbers after step 1: lower lr"):
        list(train(built(base, steps=1, lr=1e300, interaction_lr=1e300), PAIRS, tmp_path))


def test_a_mask_network_that_diverges_fails_the_training(base: Base, tmp_path: Path) -> None:
    net = tiny_u2net()
    with torch.no_grad():
        next(net.parameters()).fill_(torch.inf)
    with pytest.raises(DivergedError, match=r"the loss was nan by step 1: train with mask_steps 0"):
        list(train(built(base, mask_steps=2, steps=0), PAIRS, tmp_path, mask_net=net))


def test_bcm_without_a_network_that_finds_objects_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a U²-Net that finds objects"):
        last(train(built(base, bcm=True), PAIRS, tmp_path))


def test_the_mask_network_is_adapted_at_the_end(base: Base, tmp_path: Path) -> None:
    net = tiny_u2net()
    items = list(train(built(base, mask_steps=2, steps=1), PAIRS, tmp_path, mask_net=net))
    assert [item.stage for item in items[:-1]] == ["encode", "train", "train", "mask network", "mask network"]
    assert not net.training
    assert not same(dict(net.named_parameters()), dict(tiny_u2net().named_parameters()))


def test_no_steps_train_nothing_and_adapt_the_mask_network_alone(base: Base, tmp_path: Path) -> None:
    model, net = built(base, steps=0, mask_steps=1, composites=4), tiny_u2net()
    before = weights(model)
    *reports, result = train(model, PAIRS, tmp_path, mask_net=net)
    assert [item.stage for item in reports] == ["mask network"]
    assert result == TrainingResult([], 0, 0)
    assert same(weights(model), before)
    assert not any(value.any() for name, value in before.items() if name.endswith(("/B", "lora_B.text.weight")))
    assert not list_checkpoints(tmp_path)


def test_without_saim_training_resumes_too(base: Base, tmp_path: Path) -> None:
    whole, cut = (built(base, saim=False, steps=steps, checkpoint_every=2) for steps in (4, 4))
    last(train(whole, PAIRS, tmp_path / "whole"))
    last(train(built(base, saim=False, steps=2, mask_steps=1), PAIRS, tmp_path / "cut", mask_net=tiny_u2net()))
    assert [path.name for path in list_checkpoints(tmp_path / "cut")] == ["step-0000002"]
    last(train(cut, PAIRS, tmp_path / "cut"))
    assert same(weights(cut), weights(whole))
    assert not any("interaction" in name for name in weights(cut))


def test_progress_counts_resumed_steps(base: Base, tmp_path: Path) -> None:
    last(train(built(base, steps=6, checkpoint_every=4), PAIRS, tmp_path))
    *reports, _ = train(built(base, steps=6, checkpoint_every=4), PAIRS, tmp_path)
    assert [(item.stage, item.completed, item.total) for item in reports] == [
        ("encode", 6, 6),
        ("train", 4, 6),
        ("train", 5, 6),
        ("train", 6, 6),
    ]
    assert reports[-1].loss > 0
