"""`python -m service.cli`: the service's commands where the library is not installed."""

from __future__ import annotations

from service.cli.app import app

if __name__ == "__main__":
    app(prog_name="pairforge")
