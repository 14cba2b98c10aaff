"""The methods that generate pairs, by name, with the options that each declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from service.core.options.anomalydiffusion import RECOMMENDED_SAMPLING, AnomalySamplingConfig, AnomalyTrainingConfig
from service.core.options.baselines import CollectionConfig, CopyPasteConfig, PerlinConfig
from service.core.options.declaration import Option, declared
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MethodName = Literal["dualanodiff", "anomalydiffusion", "copy-paste", "perlin"]
Stage = Literal["training", "sampling"]


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What a method declares: its options of training and of sampling.

    Attributes:
        recommended_sampling: options of sampling that it takes as a base recommends them; None for all that it has. A
            base names options and no methods, and guidance that suits one method does not suit another.
    """

    training: type[DataclassInstance]
    sampling: type[DataclassInstance]
    recommended_sampling: frozenset[str] | None = None

    def of(self, stage: Stage) -> Mapping[str, Option]:
        """Return name → option of one stage."""
        return declared(self.training if stage == "training" else self.sampling)

    @property
    def has_model(self) -> bool:
        """Return whether pairs are made by a model, which training optimises and sampling runs step by step."""
        return "steps" in self.of("sampling")

    def recommended(self, stage: Stage, by_base: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a base's recommendations for one stage is meant for this method."""
        wanted = set(self.of(stage))
        if stage == "sampling" and self.recommended_sampling is not None:
            wanted &= self.recommended_sampling
        return {name: value for name, value in by_base.items() if name in wanted}


METHOD_OPTIONS: dict[str, MethodOptions] = {
    "dualanodiff": MethodOptions(TrainingConfig, SamplingConfig),
    "anomalydiffusion": MethodOptions(AnomalyTrainingConfig, AnomalySamplingConfig, RECOMMENDED_SAMPLING),
    "copy-paste": MethodOptions(CollectionConfig, CopyPasteConfig, frozenset()),
    "perlin": MethodOptions(CollectionConfig, PerlinConfig, frozenset()),
}
DEFAULT_METHOD: MethodName = "dualanodiff"

PLACED = frozenset({"anomalydiffusion"})
"""Methods that draw into masks which a request can give."""

BOUNDED = frozenset({"dualanodiff", "anomalydiffusion"})
"""Methods that keep to regions which a request can give."""

TYPED = frozenset({"anomalydiffusion"})
"""Methods that learn several defect types in one adapter."""

ON_NORMALS = frozenset({"anomalydiffusion", "copy-paste", "perlin"})
"""Methods that make every pair on a good part, so that they can do nothing without any."""


def suited_method(base: Path) -> MethodName:
    """Return the method that suits a base, given by its folder, best where there are good parts."""
    return "anomalydiffusion" if (base / "fill").is_dir() else DEFAULT_METHOD  # it has learned to fill masks


def methods_with(stage: Stage, name: str) -> list[str]:
    """List the methods that have an option."""
    return [method for method, options in METHOD_OPTIONS.items() if name in options.of(stage)]


@cache
def offered(stage: Stage) -> Mapping[str, Option]:
    """Return name → option of any method; where not all methods have it, its help says which do.

    An option of the same name means the same with every method.
    """
    options = {name: option for method in METHOD_OPTIONS.values() for name, option in method.of(stage).items()}
    return {name: _with_methods(option, methods_with(stage, name)) for name, option in options.items()}


def _with_methods(option: Option, methods: list[str]) -> Option:
    if len(methods) == len(METHOD_OPTIONS):
        return option
    return replace(option, help=f"{option.help} Of {' and '.join(methods)} alone.")


def own_options(stage: Stage, method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without the options that only other methods have."""
    others = offered(stage).keys() - METHOD_OPTIONS[method].of(stage).keys()
    return {name: value for name, value in values.items() if name not in others}


def refusals(stage: Stage, method: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return option → why it is refused, for chosen options that only other methods have.

    Args:
        values: option → value; None means not chosen.
    """
    foreign = values.keys() - own_options(stage, method, values).keys()
    known = ", ".join(METHOD_OPTIONS[method].of(stage))
    return {
        name: f"{name} is an option of {' and '.join(methods_with(stage, name))}, not of {method}; that has {known}"
        for name, value in values.items()
        if name in foreign and value is not None
    }
