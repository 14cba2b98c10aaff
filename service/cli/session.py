"""Runs a command's body, reports how it ended as text or JSON, and sets the exit code.

0: success; 1: the adapter or job failed; 2: bad input; 3: a temporary failure (server unavailable, no disk space);
130: Ctrl-C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from service.cli.output import Output
from service.client import ApiError, Client, Resource
from service.core.disk import disk_is_full
from service.core.errors import TransientError, UsageError
from service.embedded.folder import default_data_dir, find_running

FAILED, USAGE, TRANSIENT, INTERRUPTED = 1, 2, 3, 130

SERVER_FAULT = 500
"""Statuses from here on are the server's fault, not the request's."""

TOO_MANY_REQUESTS = 429


class WorkFailedError(Exception):
    """An adapter or a job failed or was cancelled while the command waited for it."""


@contextmanager
def session(*, json: bool, interrupted: str = "") -> Iterator[Output]:
    """Run a command's body.

    Args:
        json: write JSON lines instead of text.
        interrupted: message on Ctrl-C: what becomes of the work.
    """
    output = Output(as_json=json)
    try:
        yield output
    except UsageError as error:
        output.failure("usage", USAGE, error.problems, error.summary)
        raise typer.Exit(USAGE) from error
    except ApiError as error:
        later = error.status >= SERVER_FAULT or error.status == TOO_MANY_REQUESTS
        code = TRANSIENT if later else USAGE
        output.failure("transient" if later else "usage", code, error.problems)
        raise typer.Exit(code) from error
    except WorkFailedError as error:
        output.failure("failed", FAILED, [str(error)])
        raise typer.Exit(FAILED) from error
    except TransientError as error:
        output.failure("transient", TRANSIENT, [str(error)])
        raise typer.Exit(TRANSIENT) from error
    except OSError as error:
        shortage = disk_is_full(error)
        code = TRANSIENT if shortage else USAGE
        output.failure("transient" if shortage else "usage", code, [f"{error.filename or 'a file'}: {error.strerror}"])
        raise typer.Exit(code) from error
    except KeyboardInterrupt as error:
        output.failure("interrupted", INTERRUPTED, [interrupted or "nothing was changed"], "interrupted")
        raise typer.Exit(INTERRUPTED) from error
    finally:
        output.close()


def connect() -> Client:
    """Connect to the server in `PAIRFORGE_URL`, else to the stack that runs in the default data folder.

    Raises:
        UsageError: there is neither.
    """
    if os.environ.get("PAIRFORGE_URL"):
        return Client()
    if running := find_running(default_data_dir()):
        return Client(running.url)
    raise UsageError(
        "no server found: start one with `pairforge up`, or set the environment variable PAIRFORGE_URL to its address"
    )


def wait_for(client: Client, resource: Resource, output: Output) -> Resource:
    """Show the progress until an adapter or a job has ended.

    Raises:
        WorkFailedError: it ended without success.
    """
    final = client.wait(resource.id, output.progress)
    if final.state != "succeeded":
        error = final.error or {}
        reasons = error.get("problems") or [error.get("detail") or "the server gives no reason"]
        outcome = "was cancelled" if final.state == "cancelled" else f"failed: {'; '.join(map(str, reasons))}"
        raise WorkFailedError(f"{final.id} {outcome}")
    return final
