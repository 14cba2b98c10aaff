"""Types of options that several declarations share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

CropKind = Literal["whole", "window"]
PromptStyle = Literal["rare", "names"]
Precision = Literal["fp32", "bf16"]
Scheduler = Literal[
    "dpmsolver++",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Seeds are stored as signed 64-bit integers."""


class MaskMethod(StrEnum):
    """How the mask of a generated pair is found."""

    U2NET = "u2net"
    ATTENTION = "attention"
    THRESHOLD = "threshold"
