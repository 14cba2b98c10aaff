"""What a job's evaluation may be asked for; the sizes behind a profile's name are the library's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

ProfileName = Literal["quick", "cpu", "paper"]

DURATIONS: dict[ProfileName, str] = {
    "quick": "about ten minutes per defect type",
    "cpu": "about an hour per defect type",
    "paper": "needs a GPU",
}
"""What `pairforge evaluate` takes with a profile's own rows and three seeds, on two idle cores."""

FOR_GPUS: frozenset[str] = frozenset({"paper"})
"""Profiles that would occupy a CPU for days."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """A question to the adapter's held-out photographs: do the job's pairs improve a detector?"""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    profile: Annotated[
        ProfileName,
        Field(
            description="Size of the detectors and length of their training: `quick` takes minutes on two cores, `cpu` "
            "longer, `paper` needs a GPU: a worker without one delivers the pairs unmeasured."
        ),
    ] = "quick"
    seeds: Annotated[
        int,
        Field(
            strict=True,
            ge=1,
            le=10,
            description="Detectors with and without the pairs; one alone tells nothing of chance.",
        ),
    ] = 3
