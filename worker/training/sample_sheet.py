"""A look at an adapter while it is being trained: a small sheet of pairs sampled in few steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import structlog
import torch

from model.data.placement import NormalImage
from model.dualanodiff.adapter import Adapter
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.decode import DecodedPair
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_decoded
from model.export.preview import PairSheet
from model.masks.u2net import U2Net
from model.types import Candidate

log = structlog.stdlib.get_logger(__name__)

PAIRS, STEPS = 4, 10


def sample_sheet(
    adapter: Adapter,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
    check: Callable[[], None],
) -> bytes | None:
    """Four pairs beside the real ones, as PNG; None where an adapter with BCM lacks normals or an object network, and
    where there is no memory for a look.

    All draws come from seeds of its own, so a training goes on as if there had been no look at it.

    Args:
        check: called after every denoising step; what it raises ends the sampling.
    """
    training = adapter.model.config
    if training.bcm and (not normals or object_net is None):
        return None
    config = resolve_sampling(
        adapter.model.base,
        {"seed": training.seed, "steps": STEPS, "batch": PAIRS},
        has_normals=bool(normals),
        has_mask_net=adapter.mask_net is not None,
        bcm=training.bcm,
    )

    candidates: list[Candidate] = []
    try:
        sampler = prepare_sampling(adapter, config, normals=normals, object_net=object_net)
        for item in sample_decoded(sampler, 0, PAIRS):
            check()
            if isinstance(item, DecodedPair):
                candidates.append(item.to_candidate())
    except torch.OutOfMemoryError:
        log.warning("sample_sheet_left_out")
        return None
    sheet = PairSheet(adapter.references[:PAIRS])
    for candidate in candidates:
        sheet.add(candidate.index, candidate)
    file = io.BytesIO()
    sheet.render().save(file, "PNG")
    return file.getvalue()
