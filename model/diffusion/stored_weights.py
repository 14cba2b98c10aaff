"""Reads and writes an adapter's weights: safetensors, loaded strictly, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers and peft look for."""


def contiguous(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state in main memory, as files take it."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def read_weights(path: Path, problems: list[str]) -> dict[str, Tensor]:
    """Read a file of weights; adds a problem and returns nothing if it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read: {error}")
        return {}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_lora(network: nn.Module, adapter: str, found: dict[str, Tensor], source: str, problems: list[str]) -> None:
    """Load a LoRA that is on the network already; adds a problem if names or shapes differ."""
    expected = get_peft_model_state_dict(network, adapter_name=adapter)
    if differing := _differences(found, expected):
        problems.append(f"{source}: {differing}")
    else:
        set_peft_model_state_dict(network, found, adapter_name=adapter)


def load_module(module: nn.Module, path: Path, problems: list[str]) -> None:
    """Load a module's state from a file; adds a problem if names or shapes differ."""
    found = read_weights(path, problems)
    if differing := _differences(found, module.state_dict()):
        problems.append(f"{path.name}: {differing}")
    else:
        module.load_state_dict(found)


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    missing = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(set(found) & set(expected))
        if found[name].shape != expected[name].shape
    ]
    differences = [f"{len(missing)} weights are missing, first {missing[0]}"] if missing else []
    differences += [f"{len(surplus)} weights are unknown, first {surplus[0]}"] if surplus else []
    return "; ".join(differences + shapes[:3])
