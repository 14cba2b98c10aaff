"""Problems with a user's files: a sentence, and the files that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.core.errors import UsageError
from service.core.object_keys import Upload

_NAMES_SHOWN = 5

NamedFile = tuple[Upload, str]
"""A file's purpose and the user's name for it."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One mistake, in one or several files.

    Attributes:
        detail: a sentence that names all of them.
        files: the files it is about; empty if it is about the set as a whole.
        brief: the sentence with only the first few names.
    """

    detail: str
    files: tuple[NamedFile, ...]
    brief: str

    @classmethod
    def about(cls, detail: str, *files: NamedFile) -> FileProblem:
        return cls(detail, files, detail)

    @classmethod
    def naming(cls, before: str, use: Upload, names: Sequence[str], after: str) -> FileProblem:
        """Make a problem whose sentence lists all names between `before` and `after`."""
        detail, brief = (f"{before} {listing(names)}{after}" for listing in (_all, enumerated))
        return cls(detail, tuple((use, name) for name in names), brief)


class UnusableFilesError(UsageError):
    """Files cannot be used.

    Attributes:
        found: every mistake in every file.
    """

    def __init__(self, found: Sequence[FileProblem], summary: str = "") -> None:
        self.found = list(found)
        super().__init__([problem.brief for problem in found], summary)


def enumerated(names: Sequence[str]) -> str:
    """Join names as `a, b and c`, or the first few and the number of the others."""
    if len(names) > _NAMES_SHOWN + 1:
        return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more"
    return _all(names)


def _all(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
