"""The methods that generate pairs, by name, with the options that each declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.core.options.dualanodiff import SamplingConfig, TrainingConfig

MethodName = Literal["dualanodiff"]


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What a method declares: its options of training and of sampling."""

    training: type[TrainingConfig]
    sampling: type[SamplingConfig]


METHOD_OPTIONS: dict[str, MethodOptions] = {"dualanodiff": MethodOptions(TrainingConfig, SamplingConfig)}
DEFAULT_METHOD: MethodName = "dualanodiff"
