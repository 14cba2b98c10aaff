"""Says which contrast the defects of an adapter's types shall have, see `model.quality.contrast`.

Training matches the contrast of a type's defects on the masks that it draws itself, all by one scale. That is no good
for a mask unlike these, such as a stroke that a user draws twice as wide as the real cracks, which comes out black.
What training found visible enough by itself is made no weaker: a hole through which another material shows would
become a veil.
"""

from __future__ import annotations

from model.anomalydiffusion.adapter import MATCHED, AnomalyDiffusionAdapter
from model.quality.contrast import SCALES, RealContrast, measure_contrast


def real_contrast(adapter: AnomalyDiffusionAdapter, kind: int) -> RealContrast | None:
    """Measure the real defects of a type; what training found visible enough by itself is made no weaker."""
    enough = MATCHED in adapter.card and adapter.normal_guidance_of(kind) == 1
    photographs = adapter.references_by_photograph(adapter.model.types[kind])
    return measure_contrast(photographs, 1.0 if enough else SCALES[0])
