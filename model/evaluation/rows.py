"""What a table compares: sources of generated pairs, and rows that train a detector on some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from service.core.errors import UsageError
from service.core.strict_json import to_json

REAL = "real"

CHEAPEST = "copy-paste"
"""Source that takes seconds."""

REAL_AND = "real pairs + "
"""How the title of a row with real and generated pairs begins."""


@dataclass(frozen=True, slots=True)
class Source:
    """A way to make pairs.

    Attributes:
        title: for people.
        method: the method's name; empty for pairs that exist already.
        training, sampling, limits: options that differ from the defaults.
        adapter: the source whose adapters it samples from; empty for its own.
    """

    title: str
    method: str
    training: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    adapter: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what decides its pairs, as JSON; its title does not."""
        facts = json.loads(to_json(asdict(self)))
        del facts["title"]
        return dict(facts)


UNCHECKED = {"reject": False}
"""Baselines are taken as they come, as in the literature; how many of them would have passed is counted."""

SOURCES: dict[str, Source] = {
    "copy-paste": Source("copy-paste with blending", "copy-paste", limits=UNCHECKED),
    "perlin": Source("Perlin noise (DRAEM)", "perlin", limits=UNCHECKED),
    "raw-sketch": Source("raw sketch: deformed paste", "copy-paste", sampling={"deform": True}, limits=UNCHECKED),
    "no-lora": Source("base without LoRA", "dualanodiff", training={"steps": 0}, limits=UNCHECKED),
    "dualanodiff": Source("DualAnoDiff", "dualanodiff"),
    "no-saim": Source("DualAnoDiff without SAIM", "dualanodiff", training={"saim": False}),
    "bcm": Source("DualAnoDiff with BCM", "dualanodiff", training={"bcm": True}),
    "anomalydiffusion": Source("AnomalyDiffusion", "anomalydiffusion"),
    "no-spatial": Source("AnomalyDiffusion without place words", "anomalydiffusion", training={"spatial": False}),
    "no-composites": Source("AnomalyDiffusion without composites", "anomalydiffusion", training={"composite_views": 0}),
    "no-reweighting": Source(
        "AnomalyDiffusion without re-weighting",
        "anomalydiffusion",
        sampling={"reweighting": False},
        adapter="anomalydiffusion",
    ),
    "learned-masks": Source(
        "AnomalyDiffusion on learned masks",
        "anomalydiffusion",
        training={"mask_generator_steps": 400},
        sampling={"mask_source": "learned"},
    ),
    "pushed-alike": Source(
        "AnomalyDiffusion, pushed alike everywhere",
        "anomalydiffusion",
        sampling={"faint_guidance": 1.0},
        adapter="anomalydiffusion",
    ),
    "no-detail": Source(
        "AnomalyDiffusion without real detail",
        "anomalydiffusion",
        sampling={"match_detail": False},
        adapter="anomalydiffusion",
    ),
    "one-pass": Source(
        "DualAnoDiff without a second pass", "dualanodiff", sampling={"refine_strength": 0.0}, adapter="dualanodiff"
    ),
    "filled-twice": Source(
        "AnomalyDiffusion with a second pass",
        "anomalydiffusion",
        sampling={"refine_strength": 0.4},
        adapter="anomalydiffusion",
    ),
    "checks-off": Source("DualAnoDiff, checks off", "dualanodiff", limits=UNCHECKED, adapter="dualanodiff"),
}
"""Every source by its name in a table. Options are the defaults of method and base but for those named here."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        name: `real`, a source's name, or `real+` and a source's name.
        source: name of the source of its generated pairs; empty for none.
        real: whether the detector sees the real few-shot pairs.
    """

    name: str
    source: str
    real: bool

    def title(self, sources: Mapping[str, Source]) -> str:
        """Return what a reader sees."""
        if not self.source:
            return "real pairs only"
        return f"{REAL_AND}{sources[self.source].title}" if self.real else sources[self.source].title


def parse_rows(names: Sequence[str], sources: Mapping[str, Source]) -> list[Row]:
    """Understand names of rows; doubles are left out.

    Raises:
        UsageError: there are none, or naming every row that does not exist.
    """
    rows = [_parse(name) for name in dict.fromkeys(names)]
    if unknown := [row.name for row in rows if row.name != REAL and row.source not in sources]:
        known = ", ".join([REAL, *sources])
        raise UsageError(f"there is no row {', '.join(unknown)}; rows are {known}, or {REAL}+ and one of the others")
    if not rows:
        raise UsageError("rows are empty: name at least one, such as real")
    return rows


def _parse(name: str) -> Row:
    if name == REAL:
        return Row(name, "", real=True)
    source = name.removeprefix(f"{REAL}+")
    return Row(name, source, real=source != name)


def without_verdict(names: Sequence[str]) -> str:
    """Say why rows allow no verdict, and which to add."""
    added = [name for name in names if name.startswith(f"{REAL}+")]
    alone = [name for name in names if name != REAL and name not in added]
    missing = [*([REAL] if REAL not in names else []), *([] if added else [f"{REAL}+{(alone or [CHEAPEST])[-1]}"])]
    if not missing:
        return "No verdict: the rows that it compares were not both measured with one seed."
    return (
        f"No verdict: it also needs {' and '.join(missing)}. The same command with --rows "
        f"{','.join([*names, *missing])} goes on from here."
    )
