"""`pairforge train`: an adapter from a few pairs, resumed where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.cli.checks import (
    OWN_FILES,
    Problems,
    check_new_adapter,
    choose_device,
    load_normals,
    load_pairs,
    open_base,
    require_space,
)
from model.cli.output import PREPARED, Output, duration
from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.dualanodiff.adapter import describe_pair, image_hash, read_adapter_card
from model.dualanodiff.config import resolve_config
from model.pipeline import MaskNetworks, load_mask_networks, train_adapter
from model.training.checkpoint import list_checkpoints, read_record
from model.types import Pair
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.options.declaration import choose
from service.core.options.dualanodiff import TrainingConfig
from service.core.uploads.pairs import shared_reading
from service.core.uploads.reading import Reading, chosen_reading

REQUEST_FILE = "request.json"

TRAINED_SHARE = 0.4
"""At most about this share as many numbers as the base has are trained (LoRAs of rank 32 and SAIM)."""

COPIES = 9
"""The adapter, and two checkpoints with weights, two moments and the best weights each."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the user asked for; `options` are the training options that were chosen."""

    images: Path
    masks: Path
    target: Path
    base: str
    object_name: str
    defect_name: str
    normals: Path | None = None
    device: str = "auto"
    mask_net: Path | None = None
    object_net: Path | None = None
    brightness: str | None = None
    mask_values: str | None = None
    force: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training:
    """A request that was checked, with all it needs loaded."""

    request: TrainRequest
    base: Base
    pairs: list[Pair]
    normals: list[NormalImage]
    config: TrainingConfig
    networks: MaskNetworks

    @property
    def workspace(self) -> Path:
        """Where checkpoints lie until the adapter is complete."""
        return workspace_of(self.request.target)

    def record(self) -> dict[str, Any]:
        """All that decides what is trained, as JSON."""
        return {
            "base": self.base.digest,
            "object": self.request.object_name,
            "defect": self.request.defect_name,
            "data": [describe_pair(pair) for pair in self.pairs],
            "normals": [[normal.name, image_hash(normal.image)] for normal in self.normals],
            "mask_net": _file_hash(self.request.mask_net),
            "object_net": _file_hash(self.request.object_net),
            **asdict(self.config),
        }


def workspace_of(target: Path) -> Path:
    """The folder beside an adapter's in which its training lies until it is complete."""
    return target.with_name(f"{target.name}.training")


def train(request: TrainRequest, output: Output) -> None:
    """Check, train, tell."""
    began = time.monotonic()
    training = prepare(request, output)
    output.progress(PREPARED)
    loss = perform(training, output)
    seconds = round(time.monotonic() - began, 1)
    steps = read_adapter_card(request.target)["steps"]
    facts = {
        "adapter": str(request.target),
        "object": request.object_name,
        "defect": request.defect_name,
        "base": request.base,
        "pairs": len(training.pairs),
        "steps": steps,
        "loss": loss,
        "seconds": seconds,
    }
    normals = f" --normals {request.normals}" if request.normals else ""
    output.result(
        facts,
        f"adapter: {request.target} ({steps} steps on {len(training.pairs)} pairs in "
        f"{duration(seconds)})\n"
        f"next:    pairforge generate {request.target} --out dataset.zip --num-pairs 16{normals}",
    )


def prepare(request: TrainRequest, output: Output) -> Training:
    """Load all that training needs.

    Raises:
        UsageError: listing everything that is wrong.
        TransientError: there is no room for checkpoints and adapter.
    """
    problems = Problems()
    reading = problems.attempt(_reading, request)
    found = problems.attempt(load_pairs, request.images, request.masks, reading)
    good = problems.attempt(load_normals, request.normals, reading)
    problems.attempt(check_new_adapter, request.target, force=request.force)
    problems.attempt(choose, TrainingConfig, "training options", request.options)
    device = problems.attempt(choose_device, request.device) or "cpu"
    base = problems.attempt_on(f"base {request.base}", open_base, request.base, device)
    config = networks = None
    if base is not None:
        config = problems.attempt(resolve_config, base, request.options)
        networks = problems.attempt(load_mask_networks, base, request.mask_net, request.object_net)
    if config is not None and config.bcm and networks is not None and networks.object is None:
        problems.found.append(
            f"bcm needs a network that finds objects, base {request.base} has none: give --object-net"
        )
    if problems.found or found is None or good is None or base is None or config is None or networks is None:
        raise UsageError(problems.found, "the adapter cannot be trained")
    (pairs, notes), (normals, more) = found, good
    for note in notes + more:
        output.note(note)
    if normals and not config.composites:
        output.note(f"the normals are not learned from: base {request.base} recommends none, give --composites")
    numbers = sum(parameter.numel() for parameter in base.unet.parameters())
    require_space(request.target, int(numbers * TRAINED_SHARE) * 4 * COPIES)
    training = Training(request, base, pairs, normals, config, networks)
    _check_workspace(training)
    return training


def perform(training: Training, output: Output) -> float | None:
    """Train and write the adapter; the workspace is removed once that is done. Returns the last loss."""
    request, workspace = training.request, training.workspace
    workspace.mkdir(parents=True, exist_ok=True)
    write_text(workspace / REQUEST_FILE, json.dumps(training.record()))
    if found := list_checkpoints(workspace):
        output.note(f"resuming after step {read_record(found[-1])[0]} of {training.config.steps}")
    loss = None
    for item in train_adapter(
        training.base,
        training.pairs,
        training.config,
        request.target,
        workspace,
        object_name=request.object_name,
        defect_name=request.defect_name,
        networks=training.networks,
        normals=training.normals,
    ):
        output.progress(item)
        loss = item.loss if item.stage == "train" else loss
    shutil.rmtree(workspace)
    return loss


def _reading(request: TrainRequest) -> Reading:
    """How files are to be understood: as the request says, with one brightness for all images and normals."""
    wanted = chosen_reading(request.brightness, request.mask_values)
    return shared_reading(wanted, request.images, request.masks, request.normals, OWN_FILES)


def _check_workspace(training: Training) -> None:
    """An unfinished training is resumed only if it was begun with the same settings and data."""
    workspace = training.workspace
    path = workspace / REQUEST_FILE
    if not path.is_file():
        if workspace.exists() and any(workspace.iterdir()):
            raise UsageError(
                f"{workspace} is where checkpoints go, but holds other files: remove it, or give another --out"
            )
        return
    begun, now = json.loads(path.read_text(encoding="utf-8")), training.record()
    differing = sorted(name for name in begun.keys() | now.keys() if begun.get(name) != now.get(name))
    if differing and training.request.force:
        shutil.rmtree(workspace)
    elif differing:
        raise UsageError(
            [_difference(name, begun.get(name), now.get(name)) for name in differing],
            f"{workspace} holds an unfinished training with other settings; give the same to resume it, "
            "--force to begin anew, or another --out",
        )


def _difference(name: str, before: Any, after: Any) -> str:
    if name in {"base", "data", "normals", "mask_net", "object_net"}:
        told = {"base": "the base's weights", "data": "the images or masks", "normals": "the normals"}
        what = told.get(name, f"the file of --{name.replace('_', '-')}")
        return f"{what} differ from those it was begun with"
    return f"{name} was {before!r} and is {after!r} now"


def _file_hash(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
