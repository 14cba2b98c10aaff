"""The methods there are. Each implements `model.method.Method`; an adapter's card names its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.adapter_card import read_adapter_card
from model.anomalydiffusion.method import AnomalyDiffusion
from model.baselines.method import COPY_PASTE, PERLIN
from model.diffusion.base import Base
from model.dualanodiff.method import DualAnoDiff
from model.method import Adapter, Method, TrainingCallback, TrainingRequest
from model.runtime.progress import Progress
from service.core.errors import UsageError

METHODS: dict[str, Method[Any, Any, Any]] = {
    "dualanodiff": DualAnoDiff(),
    "anomalydiffusion": AnomalyDiffusion(),
    COPY_PASTE.name: COPY_PASTE,
    PERLIN.name: PERLIN,
}


def method_named(name: str) -> Method[Any, Any, Any]:
    """Find a method by its name.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in METHODS:
        raise UsageError(f"method is {name!r}; it must be {' or '.join(METHODS)}")
    return METHODS[name]


def method_of(adapter: Adapter) -> Method[Any, Any, Any]:
    """Find the method that an adapter was trained by."""
    return METHODS[adapter.card["method"]]


def load_adapter(folder: Path, base: Base) -> Adapter:
    """Load an adapter of any method onto the base it was trained on.

    Raises:
        UsageError: it is no adapter, or naming what differs: another base, missing or surplus weights, missing files.
    """
    adapter: Adapter = METHODS[read_adapter_card(folder)["method"]].load(folder, base)
    return adapter


def train_adapter(
    request: TrainingRequest[Any], target: Path, workspace: Path, *, callback: TrainingCallback | None = None
) -> Iterator[Progress]:
    """Train with the request's method, see `model.method.Method.train`."""
    return method_named(request.method).train(request, target, workspace, callback=callback)
