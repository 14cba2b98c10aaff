from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model.runtime.seeding import step_generator
from model.training.checkpoint import (
    STATE_FILE,
    BackgroundCheckpoints,
    list_checkpoints,
    read_record,
    read_tensors,
    restore_optimizer,
    save_checkpoint,
)
from service.core.errors import UsageError


def network(seed: int = 0) -> nn.Sequential:
    """Convolution, norm and a scalar, so that optimiser states of all shapes occur."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    net.register_parameter("gain", nn.Parameter(torch.tensor(0.5)))
    return net.to(memory_format=torch.channels_last)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=0.01, fused=True)


def advance(net: nn.Sequential, optimizer: torch.optim.Optimizer, begin: int, end: int) -> None:
    for step in range(begin, end):
        pixels = torch.randn((4, 2, 6, 6), generator=step_generator(0, step))
        (net(pixels) * net.get_parameter("gain") - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = network()
    advance(whole, adam(whole), 0, 6)

    first = network()
    optimizer = adam(first)
    advance(first, optimizer, 0, 3)
    save_checkpoint(tmp_path, 3, {"net": first}, optimizer, {})
    second = network(seed=9)
    checkpoint = list_checkpoints(tmp_path)[-1]
    second.load_state_dict(read_tensors(checkpoint, "net"))
    optimizer = adam(second)
    restore_optimizer(checkpoint, optimizer)
    advance(second, optimizer, 3, 6)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_step_and_record_come_back(tmp_path: Path) -> None:
    net = network()
    path = save_checkpoint(tmp_path, 12, {"net": net}, adam(net), {"curve": [[5, 0.25]]})
    assert read_record(path) == (12, {"curve": [[5, 0.25]]})


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    net = network()
    for step in (10, 20, 100):
        save_checkpoint(tmp_path, step, {"net": net}, adam(net), {}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-0000020", "step-0000100"]
    assert len(list(tmp_path.iterdir())) == 2


def test_in_the_background_the_same_bytes_are_written_whatever_the_run_does_next(tmp_path: Path) -> None:
    net = network()
    optimizer = adam(net)
    advance(net, optimizer, 0, 2)
    told: list[tuple[int, dict[str, bytes]]] = []
    expected = save_checkpoint(tmp_path / "now", 2, {"net": net}, optimizer, {"curve": [[2, 0.5]]})
    with BackgroundCheckpoints(
        tmp_path / "later", lambda step, path: told.append((step, contents(path)))
    ) as checkpoints:
        checkpoints.save(2, {"net": net}, optimizer, {"curve": [[2, 0.5]]})
        advance(net, optimizer, 2, 5)
        checkpoints.save(5, {"net": net}, optimizer, {})
        assert told == [(2, contents(expected))]
    assert [step for step, _ in told] == [2, 5]
    assert [path.name for path in list_checkpoints(tmp_path / "later")] == ["step-0000005"]


def test_what_lasts_is_written_as_it_is(tmp_path: Path) -> None:
    net = network()
    best = {"weight": torch.arange(6.0).view(2, 3)}
    with BackgroundCheckpoints(tmp_path, lambda *_: None) as checkpoints:
        checkpoints.save(1, {"net": net}, adam(net), {}, {"best": best})
    (checkpoint,) = list_checkpoints(tmp_path)
    assert torch.equal(read_tensors(checkpoint, "best")["weight"], best["weight"])
    assert read_tensors(checkpoint, "net").keys() == net.state_dict().keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies are waited for only where they come from a device")
def test_from_a_device_the_state_of_the_step_is_written(tmp_path: Path) -> None:
    net = network().to("cuda")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with BackgroundCheckpoints(tmp_path, lambda *_: None) as checkpoints:
        checkpoints.save(1, {"net": net}, adam(net), {})
        for parameter in net.parameters():
            parameter.data.zero_()
    found = read_tensors(list_checkpoints(tmp_path)[-1], "net")
    assert all(torch.equal(found[name], value.cpu()) for name, value in before.items())


def test_what_goes_wrong_in_the_background_reaches_the_run(tmp_path: Path) -> None:
    net = network()
    (tmp_path / "file").touch()

    def write() -> None:
        with BackgroundCheckpoints(tmp_path / "file", lambda *_: None) as checkpoints:
            checkpoints.save(1, {"net": net}, adam(net), {})

    with pytest.raises(NotADirectoryError):
        write()


def test_one_that_was_interrupted_does_not_count(tmp_path: Path) -> None:
    net = network()
    save_checkpoint(tmp_path, 1, {"net": net}, adam(net), {})
    whole = list_checkpoints(tmp_path)
    (tmp_path / ".step-0000002.part").mkdir()
    (tmp_path / ".step-0000002.part" / STATE_FILE).write_text("{}")
    (tmp_path / "step-0000003").mkdir()
    assert list_checkpoints(tmp_path) == whole


def test_what_an_interruption_left_is_no_obstacle(tmp_path: Path) -> None:
    net = network()
    for leftover in (".step-0000002.part", "step-0000002"):
        (tmp_path / leftover / "junk").mkdir(parents=True)
    save_checkpoint(tmp_path, 2, {"net": net}, adam(net), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000002"]


def test_a_folder_that_does_not_exist_yet_has_no_checkpoints(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nothing") == []


def test_a_checkpoint_of_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    net = network()
    path = save_checkpoint(tmp_path, 1, {"net": net}, adam(net), {})
    with pytest.raises(UsageError, match=r"has no trainable\.safetensors"):
        read_tensors(path, "trainable")


def test_draws_depend_on_seed_and_step_alone() -> None:
    def draw(seed: int, step: int) -> int:
        return int(torch.randint(2**40, (), generator=step_generator(seed, step)))

    assert draw(3, 5) == draw(3, 5)
    assert len({draw(seed, step) for seed in range(5) for step in range(50)}) == 250
