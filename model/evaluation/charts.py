"""Draws the report's charts as SVG; colours are classes of its style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

MARGIN, PLOT, ROW, AXIS = 26, 380, 40, 30
"""Widths of margin and plot, heights of a line, whose title is above it, and of the axis."""

SQUARE, EDGE = 120, 6

Curve = Sequence[tuple[float, float]]
"""Points `(recall, precision)`, each in [0, 1]."""


def dot_chart(lines: Sequence[tuple[str, Sequence[float]]], reference: float | None, name: str) -> Markup:
    """Draw a line per row: a dot for each seed, a tick at their mean, and a dashed line at the reference.

    Args:
        lines: title and one value in [0, 1] per seed.
        reference: mean of the row that others are compared with.
        name: of the metric.
    """
    height = len(lines) * ROW
    width = PLOT + 2 * MARGIN
    parts = [
        Markup('<svg class="dots" role="img" viewBox="0 0 {} {}" aria-label="{} of each row and seed">').format(
            width, height + AXIS, name
        )
    ]
    for tenth in range(0, 11, 2):
        x = _across(tenth / 10)
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, height))
        text = Markup('<text class="axis" text-anchor="middle" x="{}" y="{}">{} %</text>')
        parts.append(text.format(x, height + 18, tenth * 10))
    if reference is not None:
        x = _across(reference)
        parts.append(Markup('<line class="reference" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, height))
    for number, (title, values) in enumerate(lines):
        y = number * ROW + 28
        parts.append(Markup('<text x="{}" y="{}">{}</text>').format(MARGIN, y - 13, title))
        parts += [Markup('<circle cx="{}" cy="{}" r="4"/>').format(_across(value), y) for value in values]
        mean = _across(sum(values) / len(values))
        parts.append(Markup('<line class="mean" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(mean, y - 8, y + 8))
    return Markup("").join([*parts, Markup("</svg>")])


def curve_chart(curves: Sequence[Curve], references: Sequence[Curve], title: str) -> Markup:
    """Draw one row's precision over recall, a line per seed, over the reference's lines."""
    side = SQUARE + 2 * EDGE
    parts = [Markup('<svg class="curve" role="img" viewBox="0 0 {0} {0}" aria-label="{1}">').format(side, title)]
    parts.append(Markup('<rect class="frame" x="{0}" y="{0}" width="{1}" height="{1}"/>').format(EDGE, SQUARE))
    for kind, group in (("reference", references), ("line", curves)):
        parts += [Markup('<polyline class="{}" points="{}"/>').format(kind, _points(curve)) for curve in group]
    return Markup("").join([*parts, Markup("</svg>")])


def _across(value: float) -> float:
    return round(MARGIN + PLOT * min(max(value, 0.0), 1.0), 1)


def _points(curve: Curve) -> str:
    return " ".join(
        f"{EDGE + SQUARE * recall:.1f},{EDGE + SQUARE * (1 - precision):.1f}" for recall, precision in curve
    )
