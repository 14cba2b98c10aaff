"""Full training state on disk: weights, optimiser and step, as safetensors and JSON, never pickle.

A checkpoint is a folder `step-0000120/` written aside and renamed, so one that exists is complete. Everything random in
a step is drawn from `step_generator(seed, step)`, so a step number is all the random state there is to keep.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.core.errors import UsageError

STATE_FILE = "state.json"


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator whose draws depend on `(seed, step)` alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step * 7_919 + 12_345) % (2**63))


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
    target = folder / f"step-{step:07d}"
    aside = folder / f".step-{step:07d}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, module in modules.items():
        state = module.state_dict() if isinstance(module, nn.Module) else module
        save_file(
            {key: value.detach().contiguous().cpu() for key, value in state.items()}, aside / f"{name}.safetensors"
        )
    save_file(_flat_optimizer(optimizer), aside / "optimizer.safetensors")
    (aside / STATE_FILE).write_text(json.dumps({"step": step, "record": dict(record)}), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
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
        f"{index}.{field}": value.detach().contiguous().cpu()
        for index, fields in state.items()
        for field, value in fields.items()
        if isinstance(value, Tensor)
    }
