"""The whole way on a base in Stable Diffusion 1.5's exact format, with the method's own settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy import ndimage

from model.anomalydiffusion import calibration
from model.anomalydiffusion.adapter import MATCHED, AnomalyDiffusionAdapter, load_adapter
from model.data.laying import FADE
from model.diffusion.base import load_base
from model.masks.networks import MaskNetworks
from model.method import TrainingRequest
from model.methods import METHODS
from model.runtime.progress import Progress
from model.types import Candidate
from service.core.options.anomalydiffusion import AnomalySamplingConfig, AnomalyTrainingConfig
from tests.support.tiny_base import SD_PIXEL_SIZE
from tests.support.tiny_data import drawn_normal, drawn_pair

METHOD = METHODS["anomalydiffusion"]
NORMALS = [drawn_normal(seed, SD_PIXEL_SIZE, SD_PIXEL_SIZE) for seed in range(2)]


def test_defects_are_learned_stored_loaded_and_drawn(
    tiny_sd_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(tiny_sd_base))
    assert (base.factor, base.resolution, base.scheduler["_class_name"]) == (8, SD_PIXEL_SIZE, "PNDMScheduler")
    assert base.scheduler["skip_prk_steps"]
    assert len(base.unet.down_blocks) == len(base.unet.up_blocks) == 4
    config = METHOD.resolve_training(base, {"steps": 2})
    assert config == AnomalyTrainingConfig(steps=2, resolution=SD_PIXEL_SIZE)
    request = TrainingRequest(
        base,
        [drawn_pair(seed, SD_PIXEL_SIZE, SD_PIXEL_SIZE) for seed in range(2)],
        config,
        "metal tile",
        "crack",
        MaskNetworks(None, None),
        normals=NORMALS,
        method="anomalydiffusion",
    )
    METHOD.check_training(request)
    monkeypatch.setattr(calibration, "CANDIDATES", 1)
    list(METHOD.train(request, tmp_path / "adapter", tmp_path / "work"))
    adapter = load_adapter(tmp_path / "adapter", base)
    assert adapter.model.embeddings.vectors.shape == (1, 4, 768)
    assert not torch.equal(adapter.model.embeddings.vectors[0, 0], adapter.model.embeddings.vectors[0, 1])
    assert set(adapter.card[MATCHED]) == {"crack"}
    for scheduler in ("dpmsolver++", "PNDMScheduler"):
        for candidate in candidates(adapter, scheduler):
            (normal,) = (each.image for each in NORMALS if each.name == candidate.normal)
            differs = (candidate.image != normal).any(-1)
            assert candidate.mask.any()
            assert differs[candidate.mask].mean() > 0.5
            assert not differs[ndimage.distance_transform_edt(~candidate.mask) > FADE].any()


def candidates(adapter: AnomalyDiffusionAdapter, scheduler: str) -> list[Candidate]:
    chosen = {"steps": 3, "scheduler": scheduler}
    settings = METHOD.resolve_sampling(adapter.base, chosen, has_normals=True, adapter=adapter)
    assert settings == AnomalySamplingConfig(steps=3, scheduler=settings.scheduler)
    sampler = METHOD.prepare(adapter, settings, normals=NORMALS)
    return [item.to_candidate() for item in sampler.decoded(0, 2) if not isinstance(item, Progress)]
