"""Says which contrast the defects of an adapter's types shall have, see `model.quality.contrast`."""

from __future__ import annotations

from model.anomalydiffusion.adapter import MATCHED, AnomalyDiffusionAdapter
from model.quality.contrast import SCALES, RealContrast, measure_contrast


def real_contrast(adapter: AnomalyDiffusionAdapter, kind: int) -> RealContrast | None:
    """Measure the real defects of a type; what training found visible enough by itself is made no weaker."""
    enough = MATCHED in adapter.card and adapter.normal_guidance_of(kind) == 1
    photographs = adapter.references_by_photograph(adapter.model.types[kind])
    return measure_contrast(photographs, 1.0 if enough else SCALES[0])
