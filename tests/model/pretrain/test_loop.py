from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.pretrain.loop import LoopConfig, LossFunction, averaged_name, run_loop, steps_taken
from model.runtime.seeding import step_generator
from model.training.checkpoint import list_checkpoints, read_record, read_tensors
from service.core.errors import DivergedError
from tests.support.tiny_data import last

CONFIG = LoopConfig(steps=24, lr=0.05, warmup=3, average_decay=0.8, checkpoint_every=8)


def network() -> nn.Sequential:
    """With running statistics, which are averaged too, and a count, which is not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def train(net: nn.Module, folder: Path, config: LoopConfig = CONFIG, stop_at: int | None = None) -> None:
    def loss_of(step: int) -> Tensor:
        pixels = torch.randn((4, 2, 6, 6), generator=step_generator(0, step))
        loss: Tensor = (net(pixels) - pixels[:, :1, 1:-1, 1:-1]).square().mean()
        return loss

    for progress in run_loop({"net": net}, loss_of, folder, config, "test"):
        if progress.completed == stop_at:
            break


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, resumed = network(), network()
    train(whole, tmp_path / "whole")
    train(network(), tmp_path / "cut", stop_at=20)
    assert [path.name for path in list_checkpoints(tmp_path / "cut")] == ["step-0000016"]
    train(resumed, tmp_path / "cut")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_it_ends_with_the_average_and_keeps_the_last_weights_beside_it(tmp_path: Path) -> None:
    net = network()
    train(net, tmp_path)
    checkpoint = list_checkpoints(tmp_path)[-1]
    average, final = read_tensors(checkpoint, averaged_name("net")), read_tensors(checkpoint, "net")
    assert all(torch.equal(value, average[name]) for name, value in net.state_dict().items())
    assert not torch.equal(average["0.weight"], final["0.weight"])
    assert average["1.num_batches_tracked"] == final["1.num_batches_tracked"] == 24


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    net, again = network(), network()
    train(net, tmp_path)
    train(again, tmp_path)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())


def test_the_loss_falls(tmp_path: Path) -> None:
    net = network()
    pixels = torch.randn((16, 2, 6, 6), generator=step_generator(1, 0))

    def error() -> float:
        with torch.no_grad():
            return float((net.eval()(pixels) - pixels[:, :1, 1:-1, 1:-1]).square().mean())

    before = error()
    train(net.train(), tmp_path, LoopConfig(steps=60, lr=0.05, warmup=3, average_decay=0.8))
    assert error() < 0.7 * before


def test_progress_counts_resumed_steps(tmp_path: Path) -> None:
    train(network(), tmp_path, stop_at=20)
    net = network()
    final = last(run_loop({"net": net}, lambda _: net[0].weight.square().sum(), tmp_path, CONFIG, "test"))
    assert (final.stage, final.completed, final.total) == ("test", 24, 24)


def test_the_rate_rises_stays_and_falls_to_a_fiftieth() -> None:
    config = LoopConfig(steps=1000, lr=2.0, warmup=100, decay_share=0.4)
    rates = [config.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[:100] == sorted(rates[:100])
    assert set(rates[99:600]) == {2.0}
    assert rates[600:] == sorted(rates[600:], reverse=True)
    assert rates[-1] == pytest.approx(0.04, rel=0.01)


def test_by_the_clock_the_rate_falls_with_the_time_spent() -> None:
    config = LoopConfig(lr=1.0, seconds=100.0, warmup=1, decay_share=0.5)
    assert config.rate(5, spent=0.0) == config.rate(99_999, spent=50.0) == 1.0
    assert 0.02 < config.rate(5, spent=75.0) < 1.0
    assert config.rate(5, spent=100.0) == pytest.approx(0.02)


def test_a_run_by_the_clock_ends_when_its_time_is_spent(tmp_path: Path) -> None:
    net = network()
    reports = list(run_loop({"net": net}, loss_of_weights(net), tmp_path, LoopConfig(lr=1e-3, seconds=0.3), "test"))
    assert {(report.unit, report.total) for report in reports} == {("seconds", 0)}
    assert steps_taken(tmp_path) > len(reports)
    assert all("steps/s" in report.note for report in reports)


def test_a_finished_run_goes_on_when_it_is_given_more_time(tmp_path: Path) -> None:
    config = LoopConfig(lr=1e-3, seconds=0.2)
    list(run_loop({"net": (net := network())}, loss_of_weights(net), tmp_path, config, "test"))
    taken = steps_taken(tmp_path)
    list(run_loop({"net": (net := network())}, loss_of_weights(net), tmp_path, config, "test"))
    assert steps_taken(tmp_path) == taken
    list(run_loop({"net": (net := network())}, loss_of_weights(net), tmp_path, replace(config, seconds=0.4), "test"))
    assert steps_taken(tmp_path) > taken


def test_time_that_a_stopped_run_has_spent_counts(tmp_path: Path) -> None:
    """Half the time is over at the checkpoint that the run is resumed from, so the rate is what it was then."""
    config = LoopConfig(lr=1.0, seconds=1e6, warmup=0, checkpoint_seconds=0.0)
    net = network()
    for report in run_loop({"net": net}, loss_of_weights(net), tmp_path, config, "test"):
        if report.note:
            break
    _, record = read_record(last_checkpoint(tmp_path))
    longer = replace(config, seconds=2 * record["seconds"], decay_share=0.5)
    assert longer.rate(10, record["seconds"]) == 1.0
    list(run_loop({"net": (net := network())}, loss_of_weights(net), tmp_path, longer, "test"))
    _, ended = read_record(last_checkpoint(tmp_path))
    assert ended["seconds"] >= longer.seconds


@pytest.mark.parametrize(("spoilt_at", "told_by"), [(10, 16), (17, 20), (23, 24)])
def test_a_run_that_diverges_ends_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, spoilt_at: int, told_by: int
) -> None:
    """It is noticed at the next checkpoint, here every 8 steps, or at the next report."""
    net = network()

    def loss_of(step: int) -> Tensor:
        loss = loss_of_weights(net)(step)
        return loss * torch.nan if step + 1 == spoilt_at else loss

    with pytest.raises(DivergedError, match=rf"the loss was nan by step {told_by}: run the same command again"):
        list(run_loop({"net": net}, loss_of, tmp_path, CONFIG, "test"))
    step, _ = read_record(last_checkpoint(tmp_path))
    assert step < spoilt_at
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(last_checkpoint(tmp_path), "net").values())


def test_a_run_without_a_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither steps nor seconds"):
        list(run_loop({"net": (net := network())}, loss_of_weights(net), tmp_path, LoopConfig(lr=1.0), "test"))


def loss_of_weights(net: nn.Sequential) -> LossFunction:
    return lambda _: net[0].weight.square().sum()


def last_checkpoint(folder: Path) -> Path:
    return list_checkpoints(folder)[-1]
