"""Writes one JSON file per dashboard into `deploy/grafana/dashboards`."""

from __future__ import annotations

from deploy.grafana.boards.all import FOLDER, written

for name, text in written().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
