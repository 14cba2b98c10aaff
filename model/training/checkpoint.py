"""Full training state on disk: weights, optimiser and step, as safetensors and JSON, never pickle.

A checkpoint is a folder `step-0000120/` written aside and renamed, so one that exists is complete. Everything random in
a step is drawn from `step_generator(seed, step)`, so a step number is all the random state there is to keep.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.runtime import switches
from model.runtime.switches import Switch
from service.core.atomic_write import atomic_folder
from service.core.errors import UsageError

STATE_FILE = "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module | Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    record: Mapping[str, Any],
    keep: int = 1,
) -> Path:
    """Write the state after `step` steps, then remove all but the newest `keep` checkpoints.

    Args:
        folder: where the run keeps its checkpoints.
        modules: name → module (its whole state is kept) or state dict.
        record: whatever else the run needs to go on, as JSON (loss curve, configuration).
    """
    return _write(folder, step, _Snapshot(modules, optimizer), json.dumps({"step": step, "record": dict(record)}), keep)


class BackgroundCheckpoints:
    """Writes a run's checkpoints in a thread of its own, one at a time, while the run goes on.

    A context: at its end the last one is complete, or its error was raised.

    Args:
        folder: where the run keeps its checkpoints.
        saved: told of every complete one, its step and folder, from the run's own thread: by the next `poll`, `wait` or
            `save` after it was written.
    """

    def __init__(self, folder: Path, saved: Callable[[int, Path], None]) -> None:
        self._folder = folder
        self._saved = saved
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[Path]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.wait()
        self._thread.shutdown()

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module | Mapping[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        record: Mapping[str, Any],
        lasting: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """As `save_checkpoint`, of the state as it is now; waits only for the one before.

        Args:
            lasting: name → state dict in main memory, contiguous, that nobody will change: it is not copied.
        """
        self.wait()
        state = json.dumps({"step": step, "record": dict(record)})
        snapshot = _Snapshot(modules, optimizer, lasting)
        self._pending = step, self._thread.submit(_write, self._folder, step, snapshot, state, 1)

    def poll(self) -> None:
        """Tell of the one under way if it is complete.

        Raises:
            OSError: it could not be written.
        """
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """As `poll`, once it is complete."""
        if self._pending is not None:
            (step, written), self._pending = self._pending, None
            self._saved(step, written.result())


class _Snapshot:
    """Copies of all tensors in main memory, by file; from CUDA devices they are still on their way."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module | Mapping[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        lasting: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        states = {
            name: module.state_dict() if isinstance(module, nn.Module) else module for name, module in modules.items()
        }
        changing = {**states, "optimizer": _flat_optimizer(optimizer)}
        copies = {name: {key: _copied(value) for key, value in state.items()} for name, state in changing.items()}
        self._files = {**copies, **{name: dict(state) for name, state in (lasting or {}).items()}}
        self._arrived: torch.cuda.Event | None = None
        if any(value.is_cuda for state in changing.values() for value in state.values()):
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def files(self) -> dict[str, dict[str, Tensor]]:
        """The copies, once they are complete."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._files


def _copied(tensor: Tensor) -> Tensor:
    if tensor.is_cuda and switches.on(Switch.LATE_COPIES):  # into pinned memory: the run does not wait for the copy
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor.detach(), non_blocking=True)
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _write(folder: Path, step: int, snapshot: _Snapshot, state: str, keep: int) -> Path:
    target = folder / f"step-{step:07d}"
    with atomic_folder(target) as aside:
        for name, tensors in snapshot.files().items():
            save_file(tensors, aside / f"{name}.safetensors")
        (aside / STATE_FILE).write_text(state, encoding="utf-8")
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE_FILE).is_file())


def read_record(checkpoint: Path) -> tuple[int, dict[str, Any]]:
    """`(step, record)` as given to `save_checkpoint`."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return int(state["step"]), dict(state["record"])


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The state dict saved under `name`.

    Raises:
        UsageError: the checkpoint has no such file.
    """
    path = checkpoint / f"{name}.safetensors"
    if not path.is_file():
        raise UsageError(f"{checkpoint} has no {path.name}: it is not a checkpoint of this kind of run")
    return load_file(path)


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved moments and step counts back into an optimiser built over the same parameters in the same order."""
    tensors = read_tensors(checkpoint, "optimizer")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, field = key.split(".", 1)
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, fields in optimizer.state.items():  # fused AdamW reads moments in the parameter's memory layout
        for name, value in fields.items():
            if value.shape == parameter.shape:
                fields[name] = torch.empty_like(parameter).copy_(value)


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{field}": value
        for index, fields in state.items()
        for field, value in fields.items()
        if isinstance(value, Tensor)
    }
