"""Switches of the shortcuts: everything that makes the plain algorithm faster can be turned off, one by one.

`PAIRFORGE_PLAIN=fused_lora,merged_unet` turns two of them off in a process, `PAIRFORGE_PLAIN=all` every one. What is
computed stays the same, up to the rounding that `docs/benchmarks.md` states for each. The variable is read once, when
the first shortcut is reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from service.core.errors import UsageError

VARIABLE = "PAIRFORGE_PLAIN"
"""Names of the switches that are off, with commas between them, or `all`."""


class Switch(StrEnum):
    """One shortcut each; its value is its name in the variable."""

    FUSED_LORA = "fused_lora"
    """Products of all branches' LoRAs with written-out gradients (`model.kernels.lora`)."""
    FUSED_SAIM = "fused_saim"
    """SAIM's five linear maps folded into two, with written-out gradients (`model.kernels.saim`)."""
    FUSED_ATTENTION = "fused_attention"
    """Attention multiplied out where PyTorch's kernel has a slow backward pass (`model.kernels.attention`)."""
    FUSED_NORM = "fused_norm"
    """Group normalisation of channels-last and half-precision activations (`model.kernels.group_norm`)."""
    FUSED_ADAM = "fused_adam"
    """The optimiser's step in one kernel (`model.training.loop`)."""
    MERGED_UNET = "merged_unet"
    """LoRAs merged into the weights for sampling (`model.dualanodiff.sampling.merged_unet`)."""
    FOLDED_U2NET = "folded_u2net"
    """Batch norms folded into U²-Net's convolutions (`model.masks.u2net`)."""
    FIXED_BATCHES = "fixed_batches"
    """Rows computed in batches of one size, so that they do not depend on each other (`batch_invariance`)."""
    KEPT_FEATURES = "kept_features"
    """BCM's features computed once per background and step (`model.dualanodiff.sampling.bcm_features`)."""
    KEPT_PROMPTS = "kept_prompts"
    """Prompts embedded once where the text encoder is not trained (`model.dualanodiff.trainer`)."""
    DISTINCT_CROPS = "distinct_crops"
    """Equal crops encoded once (`model.dualanodiff.latent_dataset`)."""
    OVERLAPPED = "overlapped"
    """Masks, checks and files made in a second thread (`model.runtime.concurrency`)."""
    CUDA_GRAPHS = "cuda_graphs"
    """Passes on a GPU recorded and replayed (`model.dualanodiff.sampling.cuda_graphs`)."""
    COMPILED = "compiled"
    """Passes on a GPU compiled while the process works (`model.dualanodiff.sampling.cuda_graphs`)."""
    LATE_COPIES = "late_copies"
    """Copies between CPU and GPU that wait for neither (`model.runtime.transfer`)."""
    KEPT_MEMORY = "kept_memory"
    """Freed memory kept by the process (`model.runtime.malloc`)."""
    MEASURED_MEMORY = "measured_memory"
    """The number of pairs per pass fitted to the GPU's memory beforehand (`model.runtime.cuda_memory`)."""


ALL = frozenset(Switch)

_off: frozenset[Switch] | None = None
"""None until the variable is read."""


def on(switch: Switch) -> bool:
    """Whether the shortcut is to be taken.

    Raises:
        UsageError: the variable names something else than switches.
    """
    global _off  # noqa: PLW0603  shortcuts lie deep in the computation, where nobody could hand a setting on
    if _off is None:
        _off = parse(os.environ.get(VARIABLE, ""))
    return switch not in _off


def parse(value: str) -> frozenset[Switch]:
    """Read the switches that are off from the variable's value.

    Raises:
        UsageError: with every unknown name, and the known ones.
    """
    names = {name.strip() for name in value.split(",")} - {""}
    if unknown := sorted(names - set(Switch) - {"all"}):
        known = ", ".join(["all", *Switch])
        raise UsageError(f"{VARIABLE} names {', '.join(unknown)}; known are {known}")
    return ALL if "all" in names else frozenset(Switch(name) for name in names)


def check() -> None:
    """Read the variable where a process starts, so that it does not start with a wrong one.

    Raises:
        UsageError: as `on`.
    """
    on(Switch.KEPT_MEMORY)


@contextmanager
def plain(*switches: Switch) -> Iterator[None]:
    """Turn exactly these switches off inside the block; all of them when none is named."""
    global _off  # noqa: PLW0603  as above
    before, _off = _off, frozenset(switches) or ALL
    try:
        yield
    finally:
        _off = before
