"""The commands `pairforge adapters`, which train on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import After, Also, Json, Limit, Name, Set, State, Wait, parse_also, parse_settings
from service.cli.resources import cancel_one, list_some, remove_one, report_created, show_one

app = typer.Typer(no_args_is_help=True, help="Train adapters on a server (PAIRFORGE_URL, PAIRFORGE_API_KEY).")


@app.command()
def create(  # noqa: PLR0913 - every option is a parameter
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images of the defect.")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder of masks: same names, white = defect.")],
    *,
    normals: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of defect-free images; every method but dualanodiff needs it."),
    ] = None,
    held_out_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images of the defect to evaluate jobs on; no training sees them. "
            "With --also: one folder of each type inside.",
        ),
    ] = None,
    held_out_masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of their masks.")] = None,
    held_out_normals: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of further defect-free images, likewise.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the adapter; default: the images' folder.")] = None,
    object_name: Annotated[
        str | None, typer.Option("--object", help="Name of the product, such as metal plate.")
    ] = None,
    defect_name: Annotated[str | None, typer.Option("--defect", help="Name of the defect, such as scratch.")] = None,
    also: Also = None,
    base: Annotated[str | None, typer.Option(help="Base model; default: the server's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    settings: Set = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Upload images and masks, and train an adapter on them."""
    from service.cli.files import held_out_pictures, normal_pictures, pair_pictures, typed_pictures
    from service.cli.session import connect, session
    from service.client.resources import Pictures

    with session(
        json=json, interrupted="if the adapter was created, its training continues; see: pairforge adapters list"
    ) as output:
        options = {
            "name": name or images.resolve().name,
            "object": object_name,
            "defect": defect_name,
            "base": base,
            "steps": steps,
            "seed": seed,
            **parse_settings(settings or ()),
        }
        found_images: Pictures
        found_masks: Pictures
        types: dict[str, tuple[Path, Path]] = {}
        if also:
            types = {defect_name or "defect": (images, masks), **parse_also(also, defect_name or "defect")}
            options["defect"] = None  # the files name theirs
            found_images, found_masks, pair_notes = typed_pictures(types)
        else:
            found_images, found_masks, pair_notes = pair_pictures(images, masks)
        good, normal_notes = normal_pictures(normals)
        held_out, held_out_notes = held_out_pictures(held_out_images, held_out_masks, held_out_normals, list(types))
        for note in (*pair_notes, *normal_notes, *held_out_notes):
            output.note(note)
        with connect() as client:
            created = client.create_adapter(found_images, found_masks, good, held_out=held_out, **options)
            report_created(
                client, created, output, wait=wait, then=f"pairforge jobs create {created.id} --num-pairs 16"
            )


@app.command("list")
def list_them(*, state: State = None, limit: Limit = 20, after: After = None, json: Json = False) -> None:
    """List your adapters, newest first."""
    list_some("adapters", state=state, limit=limit, after=after, json=json)


@app.command()
def show(adapter: Name, *, wait: Wait = False, json: Json = False) -> None:
    """Show everything that the server knows about an adapter."""
    show_one(adapter, wait=wait, json=json)


@app.command()
def cancel(adapter: Name, *, json: Json = False) -> None:
    """Cancel a training and delete its files."""
    cancel_one(adapter, json=json)


@app.command("rm")
def remove(adapter: Name, *, json: Json = False) -> None:
    """Delete a finished adapter and its files."""
    remove_one(adapter, json=json)


@app.command()
def download(
    adapter: Name,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to create.")],
    json: Json = False,
) -> None:
    """Download a trained adapter, for `pairforge generate`."""
    from service.cli.session import connect, session

    with session(json=json) as output, connect() as client:
        client.download_adapter(adapter, out)
        output.result({"adapter": str(out)}, f"adapter: {out}")
