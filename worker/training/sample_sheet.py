"""Previews an adapter while it is trained: a small sheet of pairs sampled in few steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import structlog
import torch

from model.data.placement import NormalImage
from model.export.preview import PairSheet
from model.masks.u2net import U2Net
from model.method import Adapter
from model.methods import method_of
from model.runtime.progress import Progress
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.methods import own_options

log = structlog.stdlib.get_logger(__name__)

PAIRS, STEPS = 4, 10


def sample_sheet(
    adapter: Adapter,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
    check: Callable[[], None],
) -> bytes | None:
    """Sample four pairs and show them beside the real ones, as PNG.

    Returns None if the adapter lacks an input (BCM without normals or an object network), or if memory runs out.

    All draws have their own seeds, so the preview does not change the training.

    Args:
        check: called after every denoising step; an error that it raises ends the sampling.
    """
    method, name = method_of(adapter), adapter.card["method"]
    options = own_options("sampling", name, {"seed": adapter.card["config"]["seed"], "steps": STEPS, "batch": PAIRS})
    has_normals = bool(normals)
    try:
        settings = method.resolve_sampling(adapter.base, options, has_normals=has_normals, adapter=adapter)
        method.check_sampling(adapter, settings, has_normals=has_normals, has_object_net=object_net is not None)
    except UsageError:
        return None
    candidates: list[Candidate] = []
    try:
        for item in method.prepare(adapter, settings, normals=normals, object_net=object_net).decoded(0, PAIRS):
            check()
            if not isinstance(item, Progress):
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
