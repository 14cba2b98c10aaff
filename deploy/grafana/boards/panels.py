"""What a panel is, and the JSON that Grafana has for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_uppercase
from typing import Any

from deploy.grafana.boards.queries import Query

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

_BY_STATE = {
    "queued": "blue",
    "running": "yellow",
    "cancelling": "orange",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "semi-dark-purple",
}

_BY_STAGE = {
    "load": "semi-dark-purple",
    "encode": "blue",
    "denoise": "green",
    "decode": "yellow",
    "mask": "orange",
    "check": "light-blue",
    "store": "purple",
    "zip": "light-green",
}

COLOURS = {
    "{{state}}": _BY_STATE,
    "{{outcome}}": _BY_STATE,
    "{{stage}}": _BY_STAGE,
    "{{kind}}": {"adapter": "purple", "job": "blue"},
    "{{queue}}": {"train": "purple", "generate": "blue"},
    "{{status}}": {"2..": "green", "3..": "blue", "4..": "orange", "5..": "red"},
    "accepted": {"accepted": "green"},
    "rejected": {"rejected": "orange"},
    "p50": {"p50": "green"},
    "p95": {"p95": "yellow"},
    "p99": {"p99": "red"},
}
"""By legend: regular expressions of names, and the one colour that each has wherever it is drawn."""

FAULTS = "none: all is well"
"""What a panel says that counts what should not happen."""


class Look(StrEnum):
    """Grafana's name of a kind of panel."""

    GRAPH = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Steps:
    """Colours by value: `first` from the bottom, then each from its limit on."""

    first: str
    then: Sequence[tuple[float, str]]

    def rendered(self) -> Json:
        bounds = [(None, self.first), *self.then]
        return {"mode": "absolute", "steps": [{"color": colour, "value": limit} for limit, colour in bounds]}


PLAIN = Steps("green", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel.

    Attributes:
        unit: Grafana's id of it.
        empty: what is shown where there is no data.
        steps: thresholds; a graph draws them as lines.
        stacked: the series add up.
        texts: value → (what is shown instead, its colour).
        columns: of a table: label → heading; other labels are left out.
        width, height: in Grafana's grid of 24 columns.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    look: Look = Look.GRAPH
    empty: str = "no data"
    steps: Steps = PLAIN
    stacked: bool = False
    maximum: float | None = None
    texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    width: int = 8
    height: int = 8

    def rendered(self) -> Json:
        """The panel without its number and place."""
        panel: Json = {
            "type": self.look.value,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": self._options(),
            "targets": [self._target(*pair) for pair in zip(ascii_uppercase, self.queries, strict=False)],
        }
        if self.columns:
            panel["transformations"] = [
                {"id": "filterFieldsByName", "options": {"include": {"names": list(self.columns)}}},
                {"id": "organize", "options": {"renameByName": dict(self.columns)}},
            ]
        return panel

    def _target(self, letter: str, query: Query) -> Json:
        now = self.look is not Look.GRAPH
        return {
            "refId": letter,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "instant": now,
            "range": not now,
            "format": "table" if self.look is Look.TABLE else "time_series",
        }

    def _defaults(self) -> Json:
        defaults: Json = {
            "unit": self.unit,
            "noValue": self.empty,
            "color": {"mode": "palette-classic-by-name" if self.look is Look.GRAPH else "thresholds"},
            "thresholds": self.steps.rendered(),
            "mappings": [
                {"type": "value", "options": {value: {"text": text, "color": colour}}}
                for value, (text, colour) in self.texts.items()
            ],
        }
        if self.look is not Look.TABLE:
            defaults["min"] = 0
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.look is Look.GRAPH:
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 40 if self.stacked else 5,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if self.steps.then else "off"},
            }
        return defaults

    def _overrides(self) -> list[Json]:
        if self.look is not Look.GRAPH:
            return []
        colours = {name: colour for query in self.queries for name, colour in COLOURS.get(query.legend, {}).items()}
        return [
            {
                "matcher": {"id": "byRegexp", "options": f"/^{name}$/"},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
            }
            for name, colour in colours.items()
        ]

    def _options(self) -> Json:
        match self.look:
            case Look.GRAPH:
                return {
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }
            case Look.TABLE:
                return {"showHeader": True, "cellHeight": "sm"}
            case Look.NUMBER:
                return {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
            case Look.BARS:
                return {
                    "reduceOptions": _LAST,
                    "orientation": "horizontal",
                    "displayMode": "basic",
                    "showUnfilled": True,
                }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
