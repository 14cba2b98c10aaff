"""A dashboard: rows of panels, variables, and links to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.grafana.boards.panels import SOURCE, Json, Panel

SCHEMA = 41
"""That of Grafana 12; Grafana 11 reads it, too."""

COLUMNS = 24

TAG = "pairforge"

DATASOURCE: Json = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def label_variable(name: str, label: str, series: str) -> Json:
    """A choice among the values that a label has; all of them at first. It matches as a regular expression."""
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "labels"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right as long as there is room, then below."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        uid: its name in links and files.
        variables: besides that of the data source.
    """

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Json] = ()

    def rendered(self) -> Json:
        """The JSON that Grafana reads."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "links": [
                {
                    "type": "dashboards",
                    "title": "PairForge",
                    "tags": [TAG],
                    "asDropdown": False,
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                }
            ],
            "templating": {"list": [DATASOURCE, *self.variables]},
            "annotations": {"list": []},
            "panels": [{"id": number, **panel} for number, panel in enumerate(self._placed(), start=1)],
        }

    def _placed(self) -> Iterator[Json]:
        top = 0
        for row in self.rows:
            place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
            yield {"type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
            top, left, height = top + 1, 0, 0
            for panel in row.panels:
                if left + panel.width > COLUMNS:
                    top, left, height = top + height, 0, 0
                yield {**panel.rendered(), "gridPos": {"h": panel.height, "w": panel.width, "x": left, "y": top}}
                left, height = left + panel.width, max(height, panel.height)
            top += height
