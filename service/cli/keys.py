"""The commands `pairforge keys`, which administer a server's API keys in its Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import DataDir, Json

if TYPE_CHECKING:
    from redis import Redis

app = typer.Typer(no_args_is_help=True, help="Administer API keys (PAIRFORGE_REDIS_URL, or a stack's --data-dir).")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's owner.")],
    *,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may not create, cancel or delete.")] = False,
    expires: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Days after which it is no longer valid.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Create a key; it is shown only once."""
    from service.cli.session import session
    from service.core.api_keys import create_key

    with session(json=json) as output, _records(data_dir) as client:
        expires_at = None if expires is None else time.time() + 86_400 * expires
        key = create_key(client, name, read_only=read_only, expires_at=expires_at)
        output.result(
            {"name": name, "key": key}, f"{key}\nIt is not shown again. To use it: export PAIRFORGE_API_KEY={key}"
        )


@app.command("list")
def list_them(*, data_dir: DataDir = None, json: Json = False) -> None:
    """List the keys by id and name, never the keys themselves."""
    from service.cli.output import table
    from service.cli.session import session
    from service.core.api_keys import list_keys

    with session(json=json) as output, _records(data_dir) as client:
        keys = list_keys(client)
        facts = [
            {
                "id": key.id,
                "name": key.name,
                "may": "read" if key.read_only else "write",
                "expires_at": None if key.expires_at is None else _day(key.expires_at),
                "expired": key.expired,
            }
            for key in keys
        ]
        rows = [("ID", "NAME", "MAY", "EXPIRES")]
        rows += [(str(each["id"]), str(each["name"]), str(each["may"]), _ending(each)) for each in facts]
        output.result({"data": facts}, table(rows) if keys else "no keys")


def _day(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _ending(facts: dict[str, Any]) -> str:
    return "expired" if facts["expired"] else facts["expires_at"] or "never"


@app.command()
def renew(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As list shows it.")],
    *,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Replace a key's secret; it keeps its adapters and jobs."""
    from service.cli.session import session
    from service.core.api_keys import renew_key
    from service.core.errors import UsageError

    with session(json=json) as output, _records(data_dir) as client:
        key = renew_key(client, key_id)
        if key is None:
            raise UsageError(f"no key has the id {key_id}: see pairforge keys list")
        output.result(
            {"id": key_id, "key": key}, f"{key}\nIt is not shown again. The old key stops working within a few seconds."
        )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As list shows it.")],
    *,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Revoke a key; its adapters and jobs stay."""
    from service.cli.session import session
    from service.core.api_keys import revoke_key
    from service.core.errors import UsageError

    with session(json=json) as output, _records(data_dir) as client:
        if not revoke_key(client, key_id):
            raise UsageError(f"no key has the id {key_id}: see pairforge keys list")
        output.result({"id": key_id, "revoked": True}, f"{key_id} revoked; it stops working within a few seconds")


@app.command()
def adopt(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key that gets them, as shown by list.")],
    *,
    former: Annotated[
        str, typer.Option("--from", metavar="ID", help="Id of a revoked key; default: records made without keys.")
    ] = "local",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Give a key the adapters and jobs that were made without keys or with a revoked key."""
    from service.cli.session import session
    from service.core.api_keys import adopt_records

    with session(json=json) as output, _records(data_dir) as client:
        count = adopt_records(client, former, key_id)
        output.result(
            {"id": key_id, "from": former, "records": count}, f"{count} records of {former} now belong to {key_id}"
        )


@contextmanager
def _records(data_dir: Path | None) -> Iterator[Redis]:
    """Connect to the Redis of a stack, of the environment's settings, or of the stack in the default data folder."""
    import redis

    from service.core.errors import TransientError, UsageError
    from service.core.settings import load_settings
    from service.embedded.folder import default_data_dir, find_running

    if data_dir is None and (os.environ.get("PAIRFORGE_REDIS_URL") or os.environ.get("PAIRFORGE_SECRETS_DIR")):
        url = load_settings().redis_url
    elif running := find_running(data_dir or default_data_dir()):
        url = running.environment["PAIRFORGE_REDIS_URL"]
    else:
        raise UsageError(
            f"no stack runs in {data_dir or default_data_dir()}: start it with `pairforge up`, "
            "or name the server's Redis in PAIRFORGE_REDIS_URL"
        )
    try:
        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=10) as client:
            yield client
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise TransientError(f"Redis cannot be reached: {error}") from error
