"""`pairforge train`: trains an adapter on a few pairs; resumes where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.adapter_card import describe_pair, image_hash, read_adapter_card
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
from model.masks.networks import load_mask_networks
from model.method import DefectType, TrainingRequest
from model.methods import method_named, train_adapter
from model.training.checkpoint import list_checkpoints, read_record
from service.cli.options import parse_also
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.options.declaration import choose
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, TYPED, suited_method
from service.core.strict_json import to_json
from service.core.uploads.pairs import shared_reading
from service.core.uploads.reading import Range, Reading, chosen_reading

REQUEST_FILE = "request.json"

TRAINED_SHARE = 0.4
"""Estimated ratio of trained numbers to those of the base (LoRAs of rank 32 and SAIM); rarely more."""

COPIES = 9
"""Copies of the trained numbers: the adapter, and two checkpoints with weights, two moments and best weights."""


@dataclass(frozen=True, slots=True)
class TrainCommand:
    """What the user asked for; `options` are the training options that were chosen.

    Attributes:
        method: None for the default one.
        also: further defect types, `NAME=IMAGES,MASKS` each.
    """

    images: Path
    masks: Path
    target: Path
    base: str
    object_name: str
    defect_name: str
    method: str | None = None
    also: Sequence[str] = ()
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
    """A checked command, with everything it needs loaded."""

    command: TrainCommand
    request: TrainingRequest[Any]

    @property
    def workspace(self) -> Path:
        """Return the folder that holds checkpoints until the adapter is complete."""
        return workspace_of(self.command.target)

    def record(self) -> dict[str, Any]:
        """Return everything that determines the training, as JSON."""
        return {
            "base": self.request.base.digest,
            "method": self.request.method,
            "object": self.request.object_name,
            "defect": self.request.defect_name,
            "data": [describe_pair(pair) for pair in self.request.pairs],
            **{f"data of {each.name}": [describe_pair(pair) for pair in each.pairs] for each in self.request.others},
            "normals": [[normal.name, image_hash(normal.image)] for normal in self.request.normals],
            "mask_net": _file_hash(self.command.mask_net),
            "object_net": _file_hash(self.command.object_net),
            **self.request.settings.as_dict(),
        }


def workspace_of(target: Path) -> Path:
    """Return the folder, beside the adapter's, that holds its training until it is complete."""
    return target.with_name(f"{target.name}.training")


def train(command: TrainCommand, output: Output) -> None:
    """Check the command, train the adapter, and show the result."""
    began = time.monotonic()
    training = prepare(command, output)
    output.progress(PREPARED)
    loss = perform(training, output)
    seconds = round(time.monotonic() - began, 1)
    card = read_adapter_card(command.target)
    steps, pairs = card["steps"], len(card["data"])
    facts = {
        "adapter": str(command.target),
        "object": command.object_name,
        "defect": card["defect"],
        "base": command.base,
        "pairs": pairs,
        "steps": steps,
        "loss": loss,
        "seconds": seconds,
    }
    normals = f" --normals {command.normals}" if command.normals else ""
    output.result(
        facts,
        f"adapter: {command.target} ({steps} steps on {pairs} pairs in {duration(seconds)})\n"
        f"next:    pairforge generate {command.target} --out dataset.zip --num-pairs 16{normals}",
    )


def prepare(command: TrainCommand, output: Output) -> Training:
    """Check the command and load everything that training needs.

    Raises:
        UsageError: if the command is invalid; lists every problem.
        TransientError: if the disk has too little free space for checkpoints and adapter.
    """
    problems = Problems()
    name = command.method or DEFAULT_METHOD
    method = problems.attempt(method_named, name)
    reading = problems.attempt(_reading, command)
    found = problems.attempt(load_pairs, command.images, command.masks, reading)
    others = problems.attempt(_others, command, reading)
    good = problems.attempt(load_normals, command.normals, reading)
    problems.attempt(check_new_adapter, command.target, force=command.force)
    if method is not None:
        problems.attempt(choose, METHOD_OPTIONS[name].training, f"{name} training options", command.options)
    device = problems.attempt(choose_device, command.device) or "cpu"
    base = problems.attempt_on(f"base {command.base}", open_base, command.base, device)
    request, notes = None, None
    if base is not None and method is not None:
        settings = problems.attempt(method.resolve_training, base, command.options)
        networks = problems.attempt(load_mask_networks, base, command.mask_net, command.object_net)
        if settings is not None and networks is not None:
            request = TrainingRequest(
                base,
                found[0] if found else [],
                settings,
                command.object_name,
                command.defect_name,
                networks,
                normals=good[0] if good else [],
                method=name,
                others=others[0] if others else (),
                brightness=next((each[2] for each in (found, others, good) if each and each[2]), None),
            )
            notes = problems.attempt(method.check_training, request)
    if method is not None and command.also and name not in TYPED:
        problems.found.append(f"{name} learns one defect type per adapter: --also is for anomalydiffusion")
    if problems.found or found is None or others is None or good is None or request is None or notes is None:
        raise UsageError(problems.found, "the adapter cannot be trained")
    if command.method is None and request.normals and (suited := suited_method(request.base.folder)) != name:
        notes.append(
            f"this trains {name}, the default; with normals, --method {suited} suits base {command.base} better"
        )
    for note in (*found[1], *others[1], *good[1], *notes):
        output.note(note)
    numbers = sum(parameter.numel() for parameter in request.base.unet.parameters())
    require_space(command.target, int(numbers * TRAINED_SHARE) * 4 * COPIES)
    training = Training(command, request)
    _check_workspace(training)
    return training


def perform(training: Training, output: Output) -> float | None:
    """Train and write the adapter, then remove the workspace. Returns the last loss."""
    workspace = training.workspace
    workspace.mkdir(parents=True, exist_ok=True)
    write_text(workspace / REQUEST_FILE, to_json(training.record()))
    if found := list_checkpoints(workspace):
        output.note(f"resuming after step {read_record(found[-1])[0]} of {training.request.settings.steps}")
    loss = None
    for item in train_adapter(training.request, training.command.target, workspace):
        output.progress(item)
        loss = item.loss if item.stage == "train" else loss
    shutil.rmtree(workspace)
    return loss


def _others(command: TrainCommand, reading: Reading | None) -> tuple[list[DefectType], list[str], Range | None]:
    """Read the pairs of further defect types; also returns notes and the brightness range."""
    problems = Problems()
    types: list[DefectType] = []
    notes: list[str] = []
    span = None
    also = problems.attempt(parse_also, command.also, command.defect_name) or {}
    for name, (images, masks) in also.items():
        read = problems.attempt_on(name, load_pairs, images, masks, reading)
        if read is not None:
            types.append(DefectType(name, read[0]))
            notes += read[1]
            span = span or read[2]
    if problems.found:
        raise UsageError(problems.found)
    return types, notes, span


def _reading(command: TrainCommand) -> Reading:
    """Return how to read the files: as the command says, with one brightness range for all images and normals."""
    wanted = chosen_reading(command.brightness, command.mask_values)
    try:
        others = list(parse_also(command.also, command.defect_name).values())
    except UsageError:  # reported where the types are read
        others = []
    return shared_reading(wanted, command.images, command.masks, command.normals, OWN_FILES, others)


def _check_workspace(training: Training) -> None:
    """Refuse to resume an unfinished training that was started with other settings or data."""
    workspace = training.workspace
    path = workspace / REQUEST_FILE
    if not path.is_file():
        if workspace.exists() and any(workspace.iterdir()):
            raise UsageError(
                f"checkpoints go to {workspace}, but it contains other files: remove it, or choose another --out"
            )
        return
    before = {"method": DEFAULT_METHOD} | json.loads(path.read_text(encoding="utf-8"))
    now = training.record()
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing and training.command.force:
        shutil.rmtree(workspace)
    elif differing:
        raise UsageError(
            [_difference(name, before.get(name), now.get(name)) for name in differing],
            f"{workspace} contains an unfinished training with other settings; use the same settings to resume it, "
            "--force to start over, or choose another --out",
        )


def _difference(name: str, before: Any, after: Any) -> str:
    if name in {"base", "data", "normals", "mask_net", "object_net"}:
        names = {"base": "the base's weights", "data": "the images or masks", "normals": "the normals"}
        what = names.get(name, f"the file of --{name.replace('_', '-')}")
        return f"{what} changed since it was started"
    return f"{name} was {before!r} and is now {after!r}"


def _file_hash(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
