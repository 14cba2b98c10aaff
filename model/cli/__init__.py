"""The `pairforge` command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line. The process exits with 0, or with a code of `model.cli.session`."""
    from model.cli.app import app
    from model.runtime.threads import limit_spinning

    limit_spinning()
    app(prog_name="pairforge")
