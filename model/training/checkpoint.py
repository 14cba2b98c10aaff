"""Saves and restores the full training state: weights, optimiser and step, as safetensors and JSON, never pickle.

A checkpoint is a folder `step-0000120/`, written under another name and renamed, so one that exists is complete. All
randomness of a step comes from `step_generator(seed, step)`, so the step number is the only random state to keep.
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
from service.core.strict_json import to_json

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
        folder: folder of the run's checkpoints.
        modules: name → module (its whole state is kept) or state dict.
        record: what else the run needs to resume, as JSON (loss curve, configuration).
    """
    return _write(folder, step, _Snapshot(modules, optimizer), to_json({"step": step, "record": dict(record)}), keep)


class BackgroundCheckpoints:
    """Writes a run's checkpoints in another thread, one at a time, while the run continues.

    Used as a context manager; leaving it waits for the last checkpoint, and raises its error if it failed.

    Args:
        folder: folder of the run's checkpoints.
        saved: called with the step and folder of every complete checkpoint, in the run's own thread, by the next
            `poll`, `wait` or `save`.
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
        """Save the current state like `save_checkpoint`; waits only for the checkpoint before.

        Args:
            lasting: name → contiguous state dict in main memory that never changes, so it is not copied.
        """
        self.wait()
        state = to_json({"step": step, "record": dict(record)})
        snapshot = _Snapshot(modules, optimizer, lasting)
        self._pending = step, self._thread.submit(_write, self._folder, step, snapshot, state, 1)

    def poll(self) -> None:
        """Call `saved` if the current checkpoint is complete.

        Raises:
            OSError: if it could not be written.
        """
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait until the current checkpoint is complete, then call `saved`."""
        if self._pending is not None:
            (step, written), self._pending = self._pending, None
            self._saved(step, written.result())


class _Snapshot:
    """Copies all tensors to main memory, by file; copies from CUDA devices complete later."""

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
        """Wait for the copies and return them."""
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
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE_FILE).is_file())


def read_record(checkpoint: Path) -> tuple[int, dict[str, Any]]:
    """Read `(step, record)` as given to `save_checkpoint`."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return int(state["step"]), dict(state["record"])


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """Read the state dict saved under `name`.

    Raises:
        UsageError: if the checkpoint has no such file.
    """
    path = checkpoint / f"{name}.safetensors"
    if not path.is_file():
        raise UsageError(f"{checkpoint} has no {path.name}: it belongs to another kind of training")
    return load_file(path)


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the saved moments and step counts of an optimiser over the same parameters in the same order."""
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
