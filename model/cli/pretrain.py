"""`pairforge pretrain`: trains a base from this package alone, without other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.cli.checks import Problems, check_writable, choose_device, load_pairs
from model.cli.output import PREPARED, Output
from model.diffusion.base import missing_parts
from model.pretrain.presets import PRESETS
from model.pretrain.run import START, Stage, pretrain
from model.types import Pair
from service.core.errors import UsageError

NEEDS = {
    Stage.RENDER: {},
    Stage.AUTOENCODER: {"views": Stage.RENDER},
    Stage.PAIRS: {"views": Stage.RENDER, "vae": Stage.AUTOENCODER},
    Stage.MASKS: {"views": Stage.RENDER, "vae": Stage.AUTOENCODER},
    Stage.ASSEMBLE: {"vae": Stage.AUTOENCODER, "unet": Stage.PAIRS},
    Stage.FILLING: {"views": Stage.RENDER, "encoded": Stage.PAIRS},
    Stage.MEASURE: {},
}
"""Stage → what it reads from the work folder → the stage that writes it."""


REQUIRED_OF_START = ("interaction/interaction.safetensors", "u2net/part.safetensors", "u2net/object.safetensors")
"""Files that a base to continue from must have, besides the parts of every base."""


@dataclass(frozen=True, slots=True)
class PretrainRequest:
    """What the user asked for; no `stages` means all of them, photographs are only used to measure.

    `minutes` None means as long as the preset recommends; `start` is a base to continue from.
    """

    preset: str
    work: Path
    target: Path
    stages: Sequence[str] = ()
    photo_images: Path | None = None
    photo_masks: Path | None = None
    device: str = "auto"
    minutes: float | None = None
    start: Path | None = None


def make_base(request: PretrainRequest, output: Output) -> None:
    """Check the request, then run the stages; each resumes where it was interrupted."""
    work, target = request.work, request.target
    problems = Problems()
    if request.preset not in PRESETS:
        problems.found.append(f"preset {request.preset!r} does not exist: choose from {', '.join(PRESETS)}")
    chosen = problems.attempt(_stages, request.stages) or []
    if request.minutes is not None and not request.minutes > 0:
        problems.found.append(f"--minutes is {request.minutes:g}; it must be greater than 0")
    started = request.start is not None or (work / START).is_dir()
    if request.start is not None:
        problems.attempt(_check_start, request.start)
    problems.found += [
        f"stage {stage} needs {work / part}, which stage {origin} writes: run {origin} first, or in the same command"
        for stage in chosen
        for part, origin in NEEDS[stage].items()
        if origin not in chosen and not (work / part).is_dir()
    ]
    problems.attempt(check_writable, work / "views")
    problems.attempt(_check_target, target, chosen)
    found = problems.attempt(_photographs, request)
    place = problems.attempt(choose_device, request.device)
    if problems.found or found is None or place is None:
        raise UsageError(problems.found, "the base cannot be made")
    photographs, notes = found
    for note in notes:
        output.note(note)
    output.progress(PREPARED)
    target.parent.mkdir(parents=True, exist_ok=True)
    preset = PRESETS[request.preset]
    preset = preset.lasting(request.minutes or preset.minutes, started=started)
    for item in pretrain(
        work, preset, target, device=place, stages=chosen, photographs=photographs, start=request.start
    ):
        output.progress(item)
    finished = not {Stage.ASSEMBLE, Stage.FILLING, Stage.MEASURE}.isdisjoint(chosen)
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


def _check_start(folder: Path) -> None:
    parts = (*REQUIRED_OF_START, *missing_parts(folder))
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        raise UsageError(
            f"{folder} cannot be continued from, it lacks {', '.join(missing)}: give a base made by pairforge pretrain"
        )


def _photographs(request: PretrainRequest) -> tuple[list[Pair], list[str]]:
    if request.photo_images is None and request.photo_masks is None:
        return [], []
    if request.photo_images is None or request.photo_masks is None:
        raise UsageError("--photo-images and --photo-masks must be used together: give both folders, or neither")
    return load_pairs(request.photo_images, request.photo_masks)[:2]


def _check_target(path: Path, stages: Sequence[Stage]) -> None:
    if path.is_file():
        raise UsageError(f"{path} is a file: give the path of a folder to write")
    missing = missing_parts(path)
    later = [stage for stage in (Stage.FILLING, Stage.MEASURE) if stage in stages]
    if later and Stage.ASSEMBLE not in stages and missing:
        raise UsageError(
            f"stage {later[0]} needs a complete base in {path}: {', '.join(missing)}; run stage assemble first"
        )
    if path.exists() and any(path.iterdir()) and missing:
        raise UsageError(f"{path} contains files that are not a base: choose another --out")
    check_writable(path)
