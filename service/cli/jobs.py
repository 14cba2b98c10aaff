"""The commands `pairforge jobs`, which generate datasets on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import (
    After,
    Json,
    Limit,
    Name,
    Set,
    State,
    Wait,
    parse_candidates,
    parse_counts,
    parse_settings,
)
from service.cli.resources import cancel_one, list_some, remove_one, report_created, show_one
from service.core.errors import UsageError
from service.core.limits import read_limits

app = typer.Typer(no_args_is_help=True, help="Generate datasets on a server (PAIRFORGE_URL, PAIRFORGE_API_KEY).")


@app.command()
def create(  # noqa: PLR0913 - every option is a parameter
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Id of a trained adapter.")],
    *,
    num_pairs: Annotated[
        int | None, typer.Option("--num-pairs", "-n", help="Number of pairs that pass the quality checks.")
    ] = None,
    defects: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=N,NAME=N",
            help="Pairs of each defect type, of an adapter that has several; by default --num-pairs, spread evenly.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Further layouts: mvtec,coco,yolo,labelstudio.")] = "",
    allowed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Where defects may lie: a mask for all good parts, white; or a folder of masks named like the good "
            "parts or their masks (007_mask), of which those without one are not used.",
        ),
    ] = None,
    forbidden: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Where defects may not lie, likewise.")
    ] = None,
    limits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file with limits of the quality checks.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Most candidates to try; default: 10 per pair.")] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help="Measure the pairs on the adapter's held-out photographs: quick, cpu or paper (needs a GPU).",
        ),
    ] = None,
    evaluation_seeds: Annotated[int | None, typer.Option(help="Repetitions of the evaluation; default: 3.")] = None,
    settings: Set = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Generate a dataset of image-mask pairs."""
    from service.cli.files import regions
    from service.cli.session import connect, session

    with session(json=json, interrupted="if the job was created, it continues; see: pairforge jobs list") as output:
        options = {
            "defects": parse_counts(defects) if defects is not None else None,
            "seed": seed,
            "steps": steps,
            "formats": [name.strip() for name in formats.split(",") if name.strip()] or None,
            "limits": read_limits(limits) if limits is not None else None,
            "max_attempts": max_attempts,
            "allowed": regions(allowed),
            "forbidden": regions(forbidden),
            "evaluation": _evaluation(evaluate, evaluation_seeds),
            **parse_settings(settings or ()),
        }
        with connect() as client:
            created = client.create_job(adapter, num_pairs, **options)
            report_created(
                client, created, output, wait=wait, then=f"pairforge jobs download {created.id} --out dataset.zip"
            )


def _evaluation(profile: str | None, seeds: int | None) -> dict[str, Any] | None:
    """Build the request for an evaluation; None where neither option was chosen."""
    asked = {name: value for name, value in (("profile", profile), ("seeds", seeds)) if value is not None}
    return asked or None


@app.command()
def replace(
    job: Name,
    *,
    num_pairs: Annotated[
        int | None, typer.Option("--num-pairs", "-n", help="Number of new pairs that pass the quality checks.")
    ] = None,
    defects: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=N,NAME=N",
            help="New pairs of each defect type, of an adapter that has several; default: --num-pairs, spread evenly.",
        ),
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Generate further pairs as a finished job did, for those that a reviewer rejected."""
    from service.cli.session import connect, session

    with session(json=json, interrupted="if the job was created, it continues; see: pairforge jobs list") as output:
        counts = parse_counts(defects) if defects is not None else None
        wanted = num_pairs if num_pairs is not None or counts is None else sum(counts.values())
        if wanted is None:
            raise UsageError("say how many new pairs you want: --num-pairs N, or --defects NAME=N,NAME=N")
        with connect() as client:
            created = client.replace_pairs(job, wanted, defects=counts)
            approved = "pairforge jobs select {} --approved FILE --reviewer NAME"
            report_created(client, created, output, wait=wait, then=approved.format(job))


@app.command()
def select(
    job: Name,
    *,
    candidates: Annotated[
        str | None, typer.Option(metavar="N,N", help="The approved pairs: their `candidate` in the dataset's manifest.")
    ] = None,
    approved: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file of the approved pairs instead, as the API takes them: a list of objects with `candidate` "
            "and perhaps `job_id`, `at` and `mask`, or the whole request.",
        ),
    ] = None,
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who approved them; it is written into the dataset.")
    ] = None,
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Further layouts: mvtec,coco,yolo,labelstudio.")] = "",
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Make a new dataset of the pairs that a person approved."""
    from service.cli.files import approvals
    from service.cli.session import connect, session

    with session(json=json, interrupted="if the job was created, it continues; see: pairforge jobs list") as output:
        if (candidates is None) == (approved is None):
            raise UsageError("say which pairs are approved: either --candidates 0,4,9 or --approved FILE")
        file: dict[str, Any] = {"approved": parse_candidates(candidates or "")}
        if approved is not None:
            file = approvals(approved)
        if not (name := reviewer or file.get("reviewer")):
            raise UsageError("say who approved the pairs: --reviewer NAME")
        layouts = [each.strip() for each in formats.split(",") if each.strip()] or file.get("formats") or []
        with connect() as client:
            created = client.select_pairs(job, file["approved"], reviewer=name, formats=layouts)
            report_created(
                client, created, output, wait=wait, then=f"pairforge jobs download {created.id} --out approved.zip"
            )


@app.command("list")
def list_them(*, state: State = None, limit: Limit = 20, after: After = None, json: Json = False) -> None:
    """List your jobs, newest first."""
    list_some("jobs", state=state, limit=limit, after=after, json=json)


@app.command()
def show(job: Name, *, wait: Wait = False, json: Json = False) -> None:
    """Show everything that the server knows about a job."""
    show_one(job, wait=wait, json=json)


@app.command()
def cancel(job: Name, *, json: Json = False) -> None:
    """Cancel a job and delete its files."""
    cancel_one(job, json=json)


@app.command("rm")
def remove(job: Name, *, json: Json = False) -> None:
    """Delete a finished job and its dataset."""
    remove_one(job, json=json)


@app.command()
def download(
    job: Name,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Zip file to write.")] = Path("dataset.zip"),
    preview: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the contact sheet, a PNG.")] = None,
    json: Json = False,
) -> None:
    """Download a job's dataset."""
    from service.cli.session import connect, session

    with session(json=json) as output, connect() as client:
        client.download(job, out)
        facts = {"dataset": str(out), "size_bytes": out.stat().st_size}
        if preview is not None:
            facts["preview"] = str(client.download_preview(job, preview))
        output.result(facts, f"dataset: {out} ({out.stat().st_size / 1e6:.1f} MB)\nnext:    pairforge inspect {out}")
