"""Errors that name what is wrong and what would be right.

A job fails in one of three ways: by its input (`UsageError`: tell the user what to change), by its surroundings for a
while (`TransientError`: try again), or by a defect of ours (any other exception: fatal).
"""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(Exception):
    """The input cannot be used as it is; every problem found is listed, not only the first.

    Args:
        problems: one sentence per problem, each naming the offending value and what would be right.
        summary: what was being done, as a heading over the problems.
    """

    def __init__(self, problems: Sequence[str] | str, summary: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.summary = summary
        super().__init__(str(self))

    def __str__(self) -> str:
        if not self.summary:
            return "\n".join(self.problems)
        if len(self.problems) == 1:
            return f"{self.summary}: {self.problems[0]}"
        return "\n".join([f"{self.summary}:", *(f"  - {problem}" for problem in self.problems)])


class DivergedError(UsageError):
    """A training's loss is no longer a number, so what it learned is lost; other options may keep it finite."""


class TransientError(Exception):
    """The surroundings failed for now (no disk space, no memory); the same request may succeed later."""
