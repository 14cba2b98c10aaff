"""Errors whose messages say what is wrong and what would be right.

A job fails in one of three ways: because of its input (`UsageError`: the user must change something), because of a
temporary failure of the environment (`TransientError`: try again), or because of a bug (any other exception: fatal).
"""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(Exception):
    """The input cannot be used; every problem found is listed, not only the first.

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
    """A training's loss is no longer finite, so its result is lost; other options may prevent that."""


class TransientError(Exception):
    """The environment failed temporarily (no disk space, no memory); the same request may succeed later."""
