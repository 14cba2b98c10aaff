"""Runs the service's commands without the library: `python -m service.cli`."""

from __future__ import annotations

from service.cli.app import app

if __name__ == "__main__":
    app(prog_name="pairforge")
