"""`pairforge pretrain`: make a base from nothing but this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.base import missing_parts
from model.cli.checks import Problems, check_writable, choose_device
from model.cli.output import PREPARED, Output
from model.pretrain.presets import PRESETS
from model.pretrain.run import Stage, pretrain
from service.core.errors import UsageError

NEEDS = {
    Stage.RENDER: {},
    Stage.AUTOENCODER: {"shards": Stage.RENDER},
    Stage.PAIRS: {"shards": Stage.RENDER, "vae": Stage.AUTOENCODER},
    Stage.MASKS: {"shards": Stage.RENDER, "vae": Stage.AUTOENCODER},
    Stage.ASSEMBLE: {"vae": Stage.AUTOENCODER, "unet": Stage.PAIRS},
}
"""What each stage finds in the work folder, and the stage that leaves it there."""


def make_base(preset: str, work: Path, target: Path, device: str, stages: Sequence[str], output: Output) -> None:
    """Check, then run the stages, each resumed where it was interrupted."""
    problems = Problems()
    if preset not in PRESETS:
        problems.found.append(f"preset {preset!r} does not exist: choose from {', '.join(PRESETS)}")
    chosen = problems.attempt(_stages, stages) or []
    problems.found += [
        f"stage {stage} needs {work / part}, which stage {origin} makes: run that before or with it"
        for stage in chosen
        for part, origin in NEEDS[stage].items()
        if origin not in chosen and not (work / part).is_dir()
    ]
    problems.attempt(check_writable, work / "shards")
    problems.attempt(_check_target, target)
    place = problems.attempt(choose_device, device)
    if problems.found or place is None:
        raise UsageError(problems.found, "the base cannot be made")
    output.progress(PREPARED)
    target.parent.mkdir(parents=True, exist_ok=True)
    for item in pretrain(work, PRESETS[preset], target, device=place, stages=chosen):
        output.progress(item)
    finished = Stage.ASSEMBLE in chosen
    output.result(
        {"base": str(target) if finished else None, "work": str(work), "stages": [str(stage) for stage in chosen]},
        f"base: {target}\nnext: pairforge bases verify {target}"
        if finished
        else f"done: {', '.join(chosen)}, in {work}",
    )


def _stages(names: Sequence[str]) -> list[Stage]:
    unknown = [name for name in names if name not in list(Stage)]
    if unknown:
        raise UsageError([f"stage {name!r} does not exist: choose from {', '.join(Stage)}" for name in unknown])
    return [Stage(name) for name in names] or list(Stage)


def _check_target(path: Path) -> None:
    if path.is_file():
        raise UsageError(f"{path} is a file: name a folder to write")
    if path.exists() and any(path.iterdir()) and missing_parts(path):
        raise UsageError(f"{path} holds other files than a base: give another --out")
    check_writable(path)
