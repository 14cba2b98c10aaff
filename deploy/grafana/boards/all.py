"""All dashboards, and the files they are written to."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.boards.overview import OVERVIEW
from deploy.grafana.boards.storage import STORAGE
from deploy.grafana.boards.work import WORK
from deploy.grafana.boards.workers import WORKERS

BOARDS = (OVERVIEW, WORK, WORKERS, STORAGE)

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"


def written() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{board.uid}.json": json.dumps(board.rendered(), indent=2, ensure_ascii=False) + "\n" for board in BOARDS}
