"""Claims and leases: what a worker writes about a record that it holds.

A worker holds a record by a lease that it renews. Every write counts only while the worker holds the record; the
methods return whether it did, so that the worker knows when it has lost the record. Once a lease has run out, another
worker may take the record over.
"""

from __future__ import annotations

from service.core.object_keys import Kind
from service.core.record import Json, Record, State
from service.core.records.database import Database, record_from_pairs
from service.core.strict_json import to_json


class Claims:
    """Takes records for workers, reports their progress, and ends them or gives them back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, record: str, owner: str) -> Record | None:
        """Take a record that is queued, or running with a lease that has run out.

        None where there is nothing to do: it has ended, or another worker holds it. A record that both its user and
        its worker gave up becomes cancelled; one that was started too often without progress becomes failed.

        Args:
            owner: a name that no other execution has.
        """
        return self._claim(record, owner, joining=False)

    def join(self, record: str, owner: str) -> Record | None:
        """Like `claim`, but share a job that other workers hold."""
        return self._claim(record, owner, joining=True)

    def next(self, kind: Kind, owner: str) -> tuple[Record | None, bool]:
        """Take the next record of a kind: keys take turns, and the oldest record of a key goes first.

        Jobs that want more workers are joined.

        Returns:
            The record, or None if there is nothing to do; in that case, whether a worker that may be dead holds a
            record, so that it is worth asking again soon.
        """
        while True:
            answer = self._database.run("next", kind, owner, int(kind is Kind.JOB))
            match answer:
                case ["claimed", pairs]:
                    return record_from_pairs(pairs), False
                case ["ended", record, state]:
                    self._database.count_end(record, State(state), poisoned=state == State.FAILED)
                case _:
                    return None, answer is not None

    def abandon(self, owners: str) -> dict[str, State]:
        """Free at once what dead workers held, instead of when their leases end.

        Args:
            owners: what the names of all of them begin with.

        Returns:
            Record → new state, where no living worker is left.
        """
        answer = self._database.run("abandon", owners)
        changed = {record: State(state) for record, state in zip(answer[::2], answer[1::2], strict=True)}
        for record, state in changed.items():
            self._database.count_end(record, state, poisoned=state is State.FAILED)
        return changed

    def renew(self, record: str, owner: str) -> State | None:
        """Extend the lease by its full length; the record's state, None where the lease is lost."""
        state = self._database.run("renew", record, owner)
        return None if state is None else State(state)

    def report(self, record: str, owner: str, progress: Json, counts: Json | None = None) -> bool:
        """Save how far the work is, and publish it as an event."""
        arguments = to_json(progress), to_json(counts) if counts else ""
        return bool(self._database.run("report", record, owner, *arguments))

    def save_checkpoint(self, record: str, owner: str, checkpoint: Json) -> bool:
        """Save where to resume; the objects that the checkpoint names are stored already."""
        return bool(self._database.run("checkpoint", record, owner, to_json(checkpoint)))

    def release(self, record: str, owner: str) -> bool:
        """Give the record back because the worker stops: running → queued; this attempt does not count."""
        return self._leave(record, owner, counts=False)

    def leave_to_others(self, job: str, owner: str) -> bool:
        """Like `release`, and want no further worker: those that hold the job finish it."""
        return self._leave(job, owner, counts=False, enough=True)

    def retry(self, record: str, owner: str, reason: str = "") -> bool:
        """Give the record back after a transient failure: running → queued after a pause; this attempt counts.

        Args:
            reason: a sentence for the user, shown if this was the last attempt.
        """
        return self._leave(record, owner, counts=True, reason=reason)

    def succeed(self, record: str, owner: str, result: Json, stored_bytes: int) -> bool:
        """From running to succeeded. A job's owner must hold the claim to judge its blocks (`Blocks.claim_judge`).

        Args:
            stored_bytes: of all its objects, uploads included.
        """
        return self._finish(record, owner, State.SUCCEEDED, to_json(result), stored_bytes)

    def fail(self, record: str, owner: str, error: Json) -> bool:
        """From running to failed, from cancelling to cancelled.

        Args:
            error: {"code", "detail", "problems"}.
        """
        return self._finish(record, owner, State.FAILED, to_json(error), "")

    def mark_cancelled(self, record: str, owner: str) -> bool:
        """From cancelling to cancelled; its objects are deleted soon (see `Upkeep.garbage`)."""
        return self._finish(record, owner, State.CANCELLED, "", "")

    def _claim(self, record: str, owner: str, *, joining: bool) -> Record | None:
        answer = self._database.run("claim", record, owner, int(joining))
        if isinstance(answer, str):
            self._database.count_end(record, State(answer), poisoned=answer == State.FAILED)
            return None
        return None if answer is None else record_from_pairs(answer)

    def _leave(self, record: str, owner: str, *, counts: bool, reason: str = "", enough: bool = False) -> bool:
        answer = self._database.run("leave", record, owner, int(counts), reason, int(enough))
        if answer is not None:
            self._database.count_end(record, State(answer), poisoned=answer == State.FAILED)
        return answer is not None

    def _finish(self, record: str, owner: str, target: State, outcome: str, stored_bytes: int | str) -> bool:
        return self._database.change_state("finish", record, owner, target, outcome, stored_bytes) is not None
