"""Early stopping: what is measured, what is kept, and that an interruption changes neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.diffusion.base import Base, load_base
from model.dualanodiff import trainer
from model.dualanodiff.latent_dataset import LatentDataset
from model.dualanodiff.loss import held_out_loss
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.runtime.progress import Progress
from model.training import early_stopping
from model.training.checkpoint import list_checkpoints
from model.training.early_stopping import LEAST_PAIRS, SMOOTHED_OVER, BestWeights, TrainingResult, spare_pair
from service.core.errors import DivergedError
from tests.support.tiny_data import drawn_pair, last, tiny_config, train

PAIRS = [drawn_pair(seed) for seed in range(LEAST_PAIRS)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(autouse=True)
def _measured_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEASURE_EVERY", "PATIENCE"):
        monkeypatch.setattr(early_stopping, name, 2)


def built(base: Base, **chosen: object) -> DualAnoDiffModel:
    config = tiny_config(**{"views": 1, "steps": 40, "checkpoint_every": 3, "lr": 1.0, "warmup": 0, **chosen})
    return build_model(base, config, "metal tile", "crack")


def weights(model: DualAnoDiffModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.trainable().items()}


def followed(values: list[float]) -> tuple[BestWeights, nn.Parameter]:
    """Measures with these values, where the weight counts the steps."""
    best, weight = BestWeights(), nn.Parameter(torch.zeros(()))
    for step, value in enumerate(values):
        weight.data.fill_(step)
        best.measure(step, lambda value=value: torch.tensor(value), {"weight": weight})
    return best, weight


def test_the_weights_with_the_best_smoothed_measure_are_kept() -> None:
    best, weight = followed([3.0, 2.0, 1.0, 1.0, 1.2, 0.7, 2.0, 2.0])
    smooth = [sum([3.0, 2.0, 1.0, 1.0, 1.2, 0.7, 2.0, 2.0][max(0, end - SMOOTHED_OVER) : end]) for end in range(3, 9)]
    assert best.step == 2 + smooth.index(min(smooth)) == 5
    assert float(weight.detach()) == 7
    best.put_back({"weight": weight})
    assert float(weight.detach()) == 5


def test_it_ends_after_so_many_measures_without_a_new_best() -> None:
    assert not followed([1.0, 2.0])[0].exhausted
    assert followed([1.0, 2.0, 2.0])[0].exhausted
    assert not followed([9.0, 8.0, 7.0, 6.0, 5.0])[0].exhausted


def test_a_training_that_gets_worse_stops_with_its_best_weights(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this learning rate it soon gets worse."""
    model = built(base)
    *reports, told = train(model, PAIRS, tmp_path)
    assert isinstance(told, TrainingResult)
    assert told.held_out == PAIRS[model.config.seed % LEAST_PAIRS].name
    assert told.kept < told.steps < 40
    assert [step for step, _ in told.held_out_curve] == list(range(2, told.steps + 1, 2))
    assert isinstance(reports[-1], Progress)
    assert reports[-1].note == f"stopped early: the loss on the held-out pair was lowest after {told.kept} steps"
    # The same pair is left out of a training that cannot stop early.
    monkeypatch.setattr(trainer, "spare_pair", lambda types, _, seed: seed % len(types))
    shorter = built(base, steps=told.kept)
    last(train(shorter, PAIRS, tmp_path / "shorter"))
    assert all(torch.equal(value, weights(shorter)[name]) for name, value in weights(model).items())


def test_resumed_it_keeps_and_tells_the_same(base: Base, tmp_path: Path) -> None:
    whole, resumed = built(base), built(base)
    told = last(train(whole, PAIRS, tmp_path / "whole"))
    for item in train(built(base), PAIRS, tmp_path / "cut"):
        if isinstance(item, Progress) and item.stage == "train" and item.completed >= 5:
            break
    assert list_checkpoints(tmp_path / "cut")
    assert last(train(resumed, PAIRS, tmp_path / "cut")) == told
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize(
    ("pairs", "chosen"), [(PAIRS[1:], {"steps": 5}), (PAIRS, {"steps": 5, "early_stop": False}), (PAIRS, {"steps": 4})]
)
def test_with_few_pairs_or_steps_or_on_demand_all_are_learned_from_to_the_end(
    base: Base, tmp_path: Path, pairs: list[object], chosen: dict[str, object]
) -> None:
    told = last(train(built(base, **chosen), pairs, tmp_path))
    assert (told.held_out, told.held_out_curve, told.steps, told.kept) == (None, [], chosen["steps"], chosen["steps"])


def test_a_pair_is_held_out_from_the_first_number_of_steps_that_could_end_early(base: Base, tmp_path: Path) -> None:
    told = last(train(built(base, steps=5), PAIRS, tmp_path))
    assert told.held_out == PAIRS[0].name
    assert [step for step, _ in told.held_out_curve] == [2, 4]


def test_a_pair_is_held_out_only_of_a_defect_type_that_has_others() -> None:
    def spared(*types: int) -> set[int | None]:
        return {spare_pair(types, 1000, seed) for seed in range(12)}

    assert spared(0, 0, 0, 0, 0, 0) == set(range(6))
    assert spared(0, 1, 1, 1, 1, 1) == set(range(1, 6))
    assert spared(0, 1, 1, 0, 1) == {1, 2, 4}
    assert spared(0, 0, 1, 1, 2, 2) == {None}


@pytest.mark.parametrize("bcm", [False, True])
def test_the_measure_is_the_same_at_every_call_and_batch_size(base: Base, *, bcm: bool) -> None:
    model = built(base, batch=2, bcm=bcm)
    views = torch.randn((3, 3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    bank = LatentDataset(views[:2], torch.ones((3, 1, 8, 8)), views[2] if bcm else None)
    with torch.no_grad():
        measured = held_out_loss(model, bank)
        assert torch.equal(measured, held_out_loss(model, bank))
        assert not torch.equal(measured, held_out_loss(model, bank.chosen(slice(2))))
        for batch in (1, 3):
            torch.testing.assert_close(held_out_loss(built(base, batch=batch, bcm=bcm), bank), measured)


def test_a_bank_is_divided_without_loss() -> None:
    bank = LatentDataset(torch.arange(10.0).view(2, 5, 1, 1, 1), torch.arange(5.0).view(5, 1, 1, 1), None)
    own, held = bank.without(slice(1, 3))
    assert own.masks.flatten().tolist() == [0, 3, 4]
    assert held.masks.flatten().tolist() == [1, 2]
    assert own.latents[1].flatten().tolist() == [5, 8, 9]
    assert held.latents[1].flatten().tolist() == [6, 7]


def test_a_held_out_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(DivergedError, match="the loss was nan by step 50: lower lr"):
        BestWeights().measure(50, lambda: torch.tensor(torch.nan), {})
