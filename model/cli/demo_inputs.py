"""Checks the demo's inputs before any long work starts, and turns them into requests to the service."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.cli.checks import (
    OWN_FILES,
    Problems,
    check_new_adapter,
    check_new_file,
    choose_device,
    load_normals,
    load_pairs,
)
from model.cli.output import Output
from model.diffusion.base import locate_base, missing_parts
from model.pretrain.procedural.samples import DEFECT, OBJECT, SAMPLES
from service.cli.files import normal_pictures, pair_pictures
from service.core.errors import UsageError
from service.core.limits import read_limits
from service.core.options.declaration import choose
from service.core.options.dualanodiff import SamplingConfig
from service.core.strict_json import to_json

DEMO_STEPS = 150
"""Training steps: enough for the embedded base to show the samples' defect, few enough for two CPU cores."""

DEMO_BATCH = 4
"""Pairs per sampling batch; small, because the bar moves after each batch."""

KEPT_DAYS = 10_000
"""How long the stack keeps results, so that none is made twice."""


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What the user asked for; without `images` and `masks`, the samples are used."""

    target: Path
    base: str
    images: Path | None = None
    masks: Path | None = None
    normals: Path | None = None
    num_pairs: int = 16
    steps: int | None = None
    seed: int = 0
    limits: Path | None = None
    device: str = "auto"

    @property
    def adapter(self) -> Path:
        return self.target / "adapter"

    @property
    def dataset(self) -> Path:
        return self.target / "dataset.zip"

    @property
    def preview(self) -> Path:
        return self.target / "preview.png"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked inputs of the requests to the service.

    Attributes:
        images, masks, normals: files to upload, by the name that they are sent with.
        base: the base's folder.
        training, sampling: options of the adapter and of the job.
    """

    images: dict[str, Path]
    masks: dict[str, Path]
    normals: dict[str, Path]
    base: Path
    device: str
    training: dict[str, Any]
    sampling: dict[str, Any]

    @property
    def files(self) -> list[tuple[str, Path]]:
        return [*self.images.items(), *self.masks.items(), *self.normals.items()]

    def adapter_key(self) -> str:
        """Return an idempotency key: the same for the same adapter."""
        files = [[name, hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in self.files]
        return _digest([files, self.training, str(self.base)])

    def job_key(self, adapter_id: str, num_pairs: int) -> str:
        """Return an idempotency key: the same for the same dataset."""
        return _digest([adapter_id, num_pairs, self.sampling])

    def settings(self) -> dict[str, str]:
        """Return the stack's environment variables; its limits are those that the library has on the user's machine."""
        own = {
            "BASE": self.base,
            "DEVICE": self.device,
            "MAX_FILE_BYTES": OWN_FILES.max_file_bytes,
            "MAX_BODY_BYTES": 2 * sum(path.stat().st_size for _, path in self.files) + 10**6,
            "MAX_PIXELS": OWN_FILES.max_pixels,
            "MAX_TOTAL_PIXELS": OWN_FILES.max_total_pixels,
            "MAX_PAIRS": max(1, len(self.images)),
            "MAX_NORMALS": max(1, len(self.normals)),
            "RETENTION_DAYS": KEPT_DAYS,
            "IDEMPOTENCY_SECONDS": KEPT_DAYS * 86_400,
        }
        return {f"PAIRFORGE_{name}": str(value) for name, value in own.items()}


def checked_inputs(request: DemoRequest, output: Output) -> Inputs:
    """Check and read all inputs.

    Raises:
        UsageError: if inputs are invalid; lists every problem.
    """
    own = request.images is not None or request.masks is not None
    problems = Problems()
    if own and (request.images is None or request.masks is None):
        problems.found.append(
            "--images and --masks must be used together: give both folders, or neither to use the samples"
        )
    images, masks = request.images or SAMPLES / "images", request.masks or SAMPLES / "masks"
    normals = request.normals if own else request.normals or SAMPLES / "normals"
    pairs = problems.attempt(load_pairs, images, masks) if not problems.found else None
    problems.attempt(load_normals, normals)
    limits = problems.attempt(read_limits, request.limits) if request.limits is not None else None
    problems.attempt(check_new_adapter, request.adapter, force=True)
    problems.attempt(check_new_file, request.dataset, force=True)
    problems.attempt(choose, SamplingConfig, "options", {"seed": request.seed})
    device = problems.attempt(choose_device, request.device)
    folder = problems.attempt(_base_folder, request.base)
    steps = DEMO_STEPS if request.steps is None else request.steps
    if request.num_pairs < 1:
        problems.found.append(f"num-pairs is {request.num_pairs}; it must be at least 1")
    if steps < 1:
        problems.found.append(f"steps is {steps}; it must be at least 1")
    if problems.found or folder is None or device is None:
        raise UsageError(problems.found, "the demo cannot run")
    for note in pairs[1] if pairs else ():
        output.note(note)
    object_name, defect_name = ("product", "defect") if own else (OBJECT, DEFECT)
    sampling: dict[str, Any] = {"seed": request.seed, "batch": DEMO_BATCH}
    if limits is not None:
        sampling["limits"] = limits
    found_images, found_masks, _ = pair_pictures(images, masks)
    good, _ = normal_pictures(normals)
    return Inputs(
        images=found_images,
        masks=found_masks,
        normals=good,
        base=folder,
        device=device,
        training={
            "name": "demo",
            "object": object_name,
            "defect": defect_name,
            "steps": steps,
            "mask_steps": 0,
            "seed": request.seed,
        },
        sampling=sampling,
    )


def _base_folder(source: str) -> Path:
    folder = locate_base(source)
    if missing := missing_parts(folder):
        raise UsageError([f"base {source}: {problem}" for problem in missing])
    return folder.resolve()


def _digest(content: Any) -> str:
    return hashlib.sha256(to_json(content, sort_keys=True).encode()).hexdigest()[:40]
