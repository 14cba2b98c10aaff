"""Implements the commands that `adapters` and `jobs` share."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.cli.output import Output
    from service.client import Client, Resource


def report_created(client: Client, created: Resource, output: Output, *, wait: bool, then: str) -> None:
    """Show a new record's id, or wait and show its final state; `then` is the command to run next."""
    from service.cli.session import wait_for

    if wait:
        final = wait_for(client, created, output)
        lines = [f"{final.id} {final.state}", final.sentence, f"next: {then}"]
        output.result(final.model_dump(), "\n".join(filter(None, lines)))
    else:
        output.result(created.model_dump(), f"{created.id} {created.state}")


def list_some(kind: str, *, state: str | None, limit: int, after: str | None, json: bool) -> None:
    from service.cli.output import describe, table
    from service.cli.session import connect, session

    with session(json=json) as output, connect() as client:
        listing = client.list_adapters if kind == "adapters" else client.list_jobs
        page = listing(state=state, limit=limit, after=after)
        rows = [
            ("ID", "STATE", "CREATED", "PROGRESS"),
            *((item.id, item.state, str(item.created_at or ""), describe(item)) for item in page.data),
        ]
        more = [f"more: pairforge {kind} list --after {page.next_cursor}"] if page.next_cursor else []
        output.result(page.model_dump(), "\n".join([table(rows) if page.data else f"no {kind}", *more]))


def show_one(resource_id: str, *, wait: bool, json: bool) -> None:
    from service.cli.session import connect, session, wait_for

    with session(json=json, interrupted="the work continues on the server") as output, connect() as client:
        resource = client.get(resource_id)
        if wait:
            resource = wait_for(client, resource, output)
        facts = resource.model_dump(mode="json", exclude_none=True)
        if resource.sentence:
            output.note(resource.sentence)
        output.result(facts, jsonlib.dumps(facts, indent=2, ensure_ascii=False))


def cancel_one(resource_id: str, *, json: bool) -> None:
    from service.cli.session import connect, session

    with session(json=json) as output, connect() as client:
        resource = client.cancel(resource_id)
        output.result(resource.model_dump(), f"{resource.id} {resource.state}")


def remove_one(resource_id: str, *, json: bool) -> None:
    from service.cli.session import connect, session

    with session(json=json) as output, connect() as client:
        client.delete(resource_id)
        output.result({"id": resource_id, "deleted": True}, f"{resource_id} deleted")
