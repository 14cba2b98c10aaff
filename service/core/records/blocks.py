"""Blocks of a job's candidates: which worker makes which block, and the one worker that judges them in order."""

from __future__ import annotations

from typing import cast

from service.core.record import Json, State, parse_json
from service.core.records.database import Database, blocks_key
from service.core.strict_json import to_json


class Blocks:
    """Hands out blocks and the claim to judge them; what a worker writes counts only while it holds its claim."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, job: str, owner: str, *, ahead: int, stop: int | None = None, besides: int | None = None
    ) -> int | None:
        """Take the lowest block that is neither finished nor held by a living worker; None if there is none now.

        A block that was taken too often without being finished fails the job.

        Args:
            ahead: blocks to look at, from the first that is not judged.
            stop: number of blocks that the job may have at most.
            besides: a block that the owner holds and is about to finish; without it, the owner is given that one.
        """
        optional = ("" if value is None else value for value in (stop, besides))
        block = self._database.run("claim_block", job, owner, ahead, *optional)
        if block == State.FAILED:
            self._database.count_end(job, State.FAILED, poisoned=True)
            return None
        return None if block is None else int(block)

    def finish(self, job: str, block: int, owner: str, key: str) -> bool:
        """Save the object key of a finished block that `owner` still holds."""
        return bool(self._database.run("finish_block", job, owner, block, key))

    def finished(self, job: str) -> dict[int, str]:
        """Number → object key of every finished block, judged or not."""
        return self._numbered(job, "done:")

    def claim_judge(self, job: str, owner: str) -> bool:
        """Become the only worker that judges blocks, unless another living one does."""
        return bool(self._database.run("claim_judge", job, owner))

    def save_judged(self, job: str, owner: str, judged: Json, verdict: str) -> bool:
        """Save how far judging is; only the holder of the claim to judge may.

        Args:
            judged: {"next_block": int, …}; earlier blocks are not needed for judging again.
            verdict: key of the stored verdict on the block before `next_block`.
        """
        arguments = to_json(judged), judged["next_block"], verdict
        return bool(self._database.run("save_judged", job, owner, *arguments))

    def judged(self, job: str) -> Json | None:
        """What `save_judged` saved last."""
        return parse_json(cast(str | None, self._database.redis.hget(blocks_key(job), "judged")))

    def verdicts(self, job: str) -> dict[int, str]:
        """Number → object key of the verdict on every judged block."""
        return self._numbered(job, "verdict:")

    def _numbered(self, job: str, prefix: str) -> dict[int, str]:
        fields = cast(dict[str, str], self._database.redis.hgetall(blocks_key(job)))
        found = {int(name.removeprefix(prefix)): key for name, key in fields.items() if name.startswith(prefix)}
        return dict(sorted(found.items()))
