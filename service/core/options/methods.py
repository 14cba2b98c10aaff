"""The methods that generate pairs, by name, with the options that each declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.core.options.baselines import CollectionConfig, CopyPasteConfig, PerlinConfig
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MethodName = Literal["dualanodiff", "copy-paste", "perlin"]


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What a method declares: its options of training and of sampling."""

    training: type[DataclassInstance]
    sampling: type[DataclassInstance]


METHOD_OPTIONS: dict[str, MethodOptions] = {
    "dualanodiff": MethodOptions(TrainingConfig, SamplingConfig),
    "copy-paste": MethodOptions(CollectionConfig, CopyPasteConfig),
    "perlin": MethodOptions(CollectionConfig, PerlinConfig),
}
DEFAULT_METHOD: MethodName = "dualanodiff"
