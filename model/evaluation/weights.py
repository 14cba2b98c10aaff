"""Reads published weights that the user names: strictly, and without executing code in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.core.errors import UsageError

READING = "the weights cannot be read"

COUNTER = ".num_batches_tracked"
"""Of batch normalisation; only training uses it, and some files lack it."""

NAMED = 4
"""Differences that a message names; a file of another kind differs in hundreds."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, `.safetensors` or PyTorch's format, without counters of training.

    Raises:
        UsageError: there is no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file", READING)
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no weights, PyTorch raises errors of a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path.name} is not a file of weights and nothing else: {reason}", READING) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UsageError(f"{path.name} is not a dictionary of tensors", READING)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}


def require_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str, network: str) -> None:
    """Check names and shapes of a file's tensors against those of a network.

    Raises:
        UsageError: names what is missing, what is too much and what has another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items() if not name.endswith(COUNTER)}
    missing, surplus = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    differing = [
        f"{name} {tuple(found[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = [
        f"{file} is not of {network}: {what} {_some(names)}"
        for what, names in (("it lacks", missing), ("it has", surplus), ("other shapes:", differing))
        if names
    ]
    if problems:
        raise UsageError(problems, READING)


def file_hash(path: Path) -> str:
    """Return the file's sha256; published files carry its first eight digits in their names."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{rest}"
