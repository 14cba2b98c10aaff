"""Declares the commands and their options. A command imports its code when it is called, so that help is fast."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from model.cli.options import (
    SAMPLING,
    TRAINING,
    Base,
    Brightness,
    Device,
    Force,
    Json,
    Limits,
    MaskValues,
    Method,
    Normals,
    ObjectNet,
    takes_options,
)
from model.cli.output import PREPARING
from model.cli.session import Session
from service.cli.app import app as service_app
from service.cli.options import Also
from service.core.options.evaluation import DURATIONS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Few-shot generation of image-mask pairs of manufacturing defects. Start with: pairforge demo",
)
bases_app = typer.Typer(help="List the bases shipped with the package, or verify one.")
app.add_typer(bases_app, name="bases")
app.add_typer(service_app)

RESUMES = "run the same command again to resume from the last checkpoint"
KEEPS = "run the same command again to resume; the pairs made so far are kept"


@app.callback(invoke_without_command=True)
def _pairforge(
    *, show_version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False
) -> None:
    if show_version:
        typer.echo(f"pairforge {version('pairforge')}")
        raise typer.Exit


@app.command()
@takes_options("training", TRAINING)
def train(  # noqa: PLR0913 - every option is a parameter
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Folder of images with the defect: at most 32768 pixels a side and 178 megapixels each.",
        ),
    ],
    masks: Annotated[
        Path, typer.Argument(metavar="MASKS", help="Folder of their masks: same file names, white = defect.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the adapter to, e.g. adapters/scratch.")],
    object_name: Annotated[str, typer.Option("--object", help="What the images show, e.g. 'metal nut'.")] = "product",
    defect_name: Annotated[str, typer.Option("--defect", help="The kind of defect, e.g. 'scratch'.")] = "defect",
    also: Also = None,
    normals: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Defect-free images, used to compose more training images.")
    ] = None,
    base: Base = "mini",
    method: Method = None,
    mask_net: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="U²-Net that finds defects on anomaly parts; replaces the base's."),
    ] = None,
    object_net: ObjectNet = None,
    brightness: Brightness = None,
    mask_values: MaskValues = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
    options: dict[str, Any],
) -> None:
    """Train an adapter on a few images and their masks. If interrupted, run it again to resume.

    A setting that is not given is the one that the base recommends, or else the paper's.
    """
    with Session(json=json, writes=out, interrupted=RESUMES) as output:
        output.progress(PREPARING)
        from model.cli.train import TrainCommand
        from model.cli.train import train as run

        command = TrainCommand(
            images,
            masks,
            out,
            base,
            object_name,
            defect_name,
            method=method,
            also=tuple(also or ()),
            normals=normals,
            device=device,
            mask_net=mask_net,
            object_net=object_net,
            brightness=brightness,
            mask_values=mask_values,
            force=force,
            options=options,
        )
        run(command, output)


@app.command()
@takes_options("sampling", SAMPLING)
def generate(  # noqa: PLR0913 - every option is a parameter
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Adapter folder written by `pairforge train`.")],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Dataset file to write, e.g. dataset.zip.")],
    num_pairs: Annotated[
        int | None, typer.Option("--num-pairs", "-n", help="Number of pairs that must pass the quality checks.")
    ] = None,
    defects: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=N,NAME=N",
            help="Pairs of each defect type, of an adapter that has several; by default --num-pairs, spread evenly.",
        ),
    ] = None,
    normals: Normals = None,
    formats: Annotated[
        str, typer.Option(metavar="NAMES", help="Dataset layouts to add: mvtec,coco,yolo,labelstudio, or all.")
    ] = "",
    brightness: Brightness = None,
    limits: Limits = None,
    max_attempts: Annotated[int | None, typer.Option(help="Most candidates to try; default: 10 per pair.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The adapter's base, if it can no longer be found under its recorded name.")
    ] = None,
    object_net: ObjectNet = None,
    place: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of masks to fill, each for as many pairs as the others; one named like a normal, or like "
            "its mask (007_mask or 007_GT for 007), goes there, any other to all of its size. "
            "Subfolders that are named like defect types hold the masks of these. Of anomalydiffusion alone.",
        ),
    ] = None,
    allowed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Where defects may lie: a mask for all normals, white; or a folder of masks named like the normals "
            "or their masks (007_mask), of which those without one are not used. Of dualanodiff and anomalydiffusion.",
        ),
    ] = None,
    forbidden: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Where defects may not lie, likewise; normals without a mask are free."),
    ] = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
    options: dict[str, Any],
) -> None:
    """Generate a dataset of image-mask pairs that pass the quality checks. If interrupted, run it again to resume."""
    with Session(json=json, writes=out, interrupted=KEEPS) as output:
        output.progress(PREPARING)
        from model.cli.generate import GenerateCommand
        from model.cli.generate import generate as run

        command = GenerateCommand(
            adapter,
            out,
            num_pairs,
            base=base,
            normals=normals,
            formats=formats,
            limits=limits,
            max_attempts=max_attempts,
            object_net=object_net,
            place=place,
            allowed=allowed,
            forbidden=forbidden,
            defects=defects,
            brightness=brightness,
            device=device,
            force=force,
            options=options,
        )
        run(command, output)


@app.command()
def masks(
    parts: Annotated[
        Path, typer.Argument(metavar="PARTS", help="Folder of anomaly parts: defects on a mid-grey background.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder to write the masks to.")],
    method: Annotated[str, typer.Option(help="How masks are found: u2net or threshold.")] = "u2net",
    net: Annotated[Path | None, typer.Option(metavar="FILE", help="U²-Net weights, or an adapter's folder.")] = None,
    base: Base = "mini",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the masks of defects on images of anomaly parts."""
    with Session(json=json, writes=out) as output:
        from model.cli.masks import MasksRequest, make_masks

        make_masks(MasksRequest(parts, out, method, net, base, device), output)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Adapter folder or dataset zip.")],
    *,
    json: Json = False,
) -> None:
    """Describe an adapter or a dataset, and check that its files are intact."""
    with Session(json=json) as output:
        from model.cli.inspection import inspect as run

        run(path, output)


@bases_app.callback(invoke_without_command=True)
def bases(ctx: typer.Context, *, json: Json = False) -> None:
    """List the bases shipped with the package, or verify one."""
    if ctx.invoked_subcommand is not None:
        return
    with Session(json=json) as output:
        from model.cli.bases import list_bases

        list_bases(output)


@bases_app.command()
def verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Name of a shipped base, a folder, or a hub id.")],
    *,
    json: Json = False,
) -> None:
    """Load a base as training does, and list what is missing."""
    with Session(json=json) as output:
        from model.cli.bases import verify_base

        verify_base(base, output)


@app.command()
def demo(  # noqa: PLR0913 - every option is a parameter
    *,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your images with the defect; default: samples.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of their masks.")] = None,
    normals: Normals = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write everything to.")] = Path("pairforge-demo"),
    base: Base = "mini",
    num_pairs: Annotated[int, typer.Option("--num-pairs", "-n", help="Number of pairs to generate.")] = 16,
    steps: Annotated[int | None, typer.Option(help="Number of training steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of training and generation.")] = 0,
    limits: Limits = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train on sample pairs or your own, and generate a first dataset in minutes."""
    with Session(json=json, writes=out, interrupted=RESUMES) as output:
        output.progress(PREPARING)
        from model.cli.demo import DemoRequest
        from model.cli.demo import demo as run

        run(DemoRequest(out, base, images, masks, normals, num_pairs, steps, seed, limits, device), output)


@app.command()
def evaluate(  # noqa: PLR0913 - every option is a parameter
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Photographs with splits.json, or one category of MVTec AD or VisA."),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report, result and unfinished work.")],
    profile: Annotated[
        str,
        typer.Option(help=f"{'; '.join(f'{name}: {time}' for name, time in DURATIONS.items())} (on two idle cores)."),
    ] = "quick",
    rows: Annotated[
        str, typer.Option(metavar="NAMES", help="What to compare: real, a source, real+source; default: the profile's.")
    ] = "",
    types: Annotated[str, typer.Option(metavar="NAMES", help="Defect types to use; default: all.")] = "",
    without: Annotated[
        str, typer.Option(metavar="NAMES", help="Photographs to leave out, e.g. crack/007,test/normal/031.")
    ] = "",
    pairs: Annotated[
        list[Path] | None,
        typer.Option(metavar="ZIP", help="Dataset to evaluate instead of generating one (repeatable)."),
    ] = None,
    num_pairs: Annotated[
        int | None, typer.Option("--num-pairs", "-n", help="Pairs per defect type; default: the profile's.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Repetitions; default: 3.")] = None,
    detectors: Annotated[
        int | None, typer.Option(help="Detectors per row and repetition, to average; default: the profile's.")
    ] = None,
    detector_steps: Annotated[
        int | None, typer.Option(help="Training steps of a detector; default: the profile's.")
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights for Inception Score and FID: TensorFlow's Inception-v3, as .pth."),
    ] = None,
    lpips: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights for IC-LPIPS: alex.pth or vgg.pth, version 0.1.")
    ] = None,
    lpips_net: Annotated[
        Path | None,
        typer.Option("--lpips-net", "--alexnet", metavar="FILE", help="torchvision's AlexNet or VGG-16, for --lpips."),
    ] = None,
    object_name: Annotated[str, typer.Option("--object", help="What the images show.")] = "product",
    brightness: Brightness = None,
    mask_values: MaskValues = None,
    base: Base = "mini",
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure whether generated pairs make a detector better on held-out photographs. Resumes when run again."""
    with Session(json=json, writes=out, interrupted=RESUMES) as output:
        output.progress(PREPARING)
        from model.cli.evaluate import EvaluateCommand, evaluate_data

        command = EvaluateCommand(
            data,
            out,
            profile,
            base,
            object_name,
            rows=rows,
            types=types,
            without=without,
            pairs=pairs or (),
            num_pairs=num_pairs,
            seeds=seeds,
            detectors=detectors,
            detector_steps=detector_steps,
            inception=inception,
            lpips=lpips,
            lpips_net=lpips_net,
            brightness=brightness,
            mask_values=mask_values,
            device=device,
            force=force,
        )
        evaluate_data(command, output)


@app.command()
def pretrain(
    *,
    preset: Annotated[str, typer.Option(help="cpu (ten hours on two cores) or gpu (nine minutes on one GPU).")],
    work: Annotated[Path, typer.Option(metavar="DIR", help="Folder for rendered shards and checkpoints.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the base to.")],
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Run only this stage (repeatable): render, autoencoder, pairs, masks, assemble, measure."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Total duration, resumed runs included; default: the preset's.")
    ] = None,
    start: Annotated[Path | None, typer.Option(metavar="DIR", help="Existing base to continue training from.")] = None,
    photo_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photographs to also measure the base on; never trained on.")
    ] = None,
    photo_masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of their masks.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a base on procedurally rendered images alone. If interrupted, run it again to resume."""
    with Session(json=json, writes=work, interrupted=RESUMES) as output:
        output.progress(PREPARING)
        from model.cli.pretrain import PretrainRequest, make_base

        stages = stage or []
        request = PretrainRequest(preset, work, out, stages, photo_images, photo_masks, device, minutes, start)
        make_base(request, output)
