"""The service's commands. Each imports its implementation when it is called, so that help appears at once."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import adapters, jobs, keys
from service.cli.options import DataDir, Json

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The service's commands.",
)


@app.command()
def up(
    *,
    data_dir: DataDir = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; default: a free one.")] = None,
    host: Annotated[str, typer.Option(metavar="IP", help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(help="Number of worker processes, which train and generate.")] = 1,
    require_keys: Annotated[
        bool,
        typer.Option("--require-keys", help="Require API keys on 127.0.0.1, too; other addresses always require them."),
    ] = False,
    json: Json = False,
) -> None:
    """Run the whole service on this machine: Redis, S3, API and workers, until Ctrl-C."""
    from service.cli.session import session
    from service.cli.up import run_stack
    from service.embedded.folder import default_data_dir
    from service.embedded.stack import StackOptions

    with session(json=json) as output:
        options = StackOptions(data_dir or default_data_dir(), host, port, workers, require_keys)
        run_stack(options, output, json=json)


app.add_typer(adapters.app, name="adapters")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
