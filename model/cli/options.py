"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TRAINING, SAMPLING = "Training settings (default: the base's recommendation, else the paper's)", "Sampling settings"

Brightness = Annotated[
    str | None,
    typer.Option(
        metavar="LOW:HIGH", help="Of more than 8 bits, what becomes black and white; default: from all files."
    ),
]
MaskValues = Annotated[
    str | None, typer.Option(metavar="VALUES", help="Levels or colours of masks that are the defect: 1,2 or #ff0000.")
]
Base = Annotated[str, typer.Option(help="Name of a shipped base, folder, or hub id, in diffusers' format.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line: progress, note, result, error.")]
Limits = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help='JSON with limits of the quality checks, as {"min_visibility": 1.0}.'),
]
Normals = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Defect-free images: defects are then generated on these.")
]
ObjectNet = Annotated[
    Path | None, typer.Option(metavar="FILE", help="U²-Net that finds products, in place of the base's.")
]
