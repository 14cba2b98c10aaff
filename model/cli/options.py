"""Defines the options that several commands share, and makes options from a declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from service.core.options.declaration import Option, chosen
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, Stage, methods_with, offered

Command = Callable[..., None]

TRAINING, SAMPLING = "Training settings", "Sampling settings"

Brightness = Annotated[
    str | None,
    typer.Option(
        metavar="LOW:HIGH",
        help="For images of more than 8 bits: values that become black and white; default: from all files.",
    ),
]
MaskValues = Annotated[
    str | None,
    typer.Option(metavar="VALUES", help="Mask values that mean defect, as levels or colours: 1,2 or #ff0000."),
]
Method = Annotated[
    str | None,
    typer.Option(help=f"Generation method: {', '.join(METHOD_OPTIONS)}.", show_default=DEFAULT_METHOD),
]
Base = Annotated[str, typer.Option(help="Name of a shipped base, or a folder or hub id in diffusers' format.")]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu or cuda.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line: progress, note, result, error.")]
Limits = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help='JSON file with limits of the quality checks, e.g. {"min_visibility": 1.0}.'),
]
Normals = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of defect-free images to generate defects on.")
]
ObjectNet = Annotated[
    Path | None, typer.Option(metavar="FILE", help="U²-Net that finds products; replaces the base's.")
]


def _choices(option: Option) -> str | None:
    return "|".join(get_args(option.type)) if get_origin(option.type) is Literal else None


def _panel(stage: Stage, option: Option, panel: str) -> str:
    methods = methods_with(stage, option.name)
    return panel if len(methods) == len(METHOD_OPTIONS) else f"{panel} of {' and '.join(methods)}"


def takes_options(stage: Stage, panel: str) -> Callable[[Command], Command]:
    """Add the options of all methods to a command; it receives the chosen ones as its argument `options`.

    The library checks their ranges, and whether the method has them, so that one message names all that is wrong.
    """
    options = offered(stage)

    def extend(command: Command) -> Command:
        @wraps(command)
        def extended(*args: Any, **given: Any) -> None:
            values = {name: given.pop(name) for name in options}
            command(*args, **given, options=chosen(values))

        own = inspect.signature(command, eval_str=True)
        added = [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    (str if get_origin(option.type) is Literal else option.type) | None,
                    typer.Option(
                        rich_help_panel=_panel(stage, option, panel), help=option.summary, metavar=_choices(option)
                    ),
                ],
            )
            for option in options.values()
        ]
        kept = [parameter for parameter in own.parameters.values() if parameter.name != "options"]
        extended.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        return extended

    return extend
