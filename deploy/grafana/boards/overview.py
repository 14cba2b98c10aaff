"""Is the service well, and is it fast enough?"""

from __future__ import annotations

from deploy.grafana.boards.board import Board, Row
from deploy.grafana.boards.panels import FAULTS, Look, Panel, Steps
from deploy.grafana.boards.queries import Query, quantile, quantiles, rate, rejected_candidates

REQUESTS = "pairforge_http_requests_total"
DURATION = "pairforge_http_request_duration_seconds"
WORKING = 'route!~"/(healthz|readyz|metrics)|.*/events"'
"""Probes are no requests, and how long a stream of events lasts is up to its reader."""


def records(state: str) -> str:
    """How many records are in a state; every API process tells the same numbers."""
    return f'sum(max by (kind) (pairforge_records{{state="{state}"}}))'


def now(title: str, description: str, unit: str, expr: str, steps: Steps, empty: str = "unknown") -> Panel:
    """One number at the top."""
    return Panel(
        title=title,
        description=description,
        unit=unit,
        queries=[Query(expr)],
        look=Look.NUMBER,
        steps=steps,
        empty=empty,
        width=3,
        height=4,
    )


NOW = Row(
    "Now",
    [
        now(
            "Workers",
            "Heard of in the last half minute.",
            "short",
            "max(pairforge_workers)",
            Steps("red", [(1, "green")]),
        ),
        now(
            "Running",
            "Adapters and jobs that a worker holds.",
            "short",
            records("running"),
            Steps("green", ()),
        ),
        now(
            "Queued",
            "Adapters and jobs that wait for a worker.",
            "short",
            records("queued"),
            Steps("green", ()),
        ),
        now(
            "Longest wait",
            "How long the first in the queue has waited.",
            "s",
            "max(pairforge_oldest_queued_seconds)",
            Steps("green", [(900, "yellow"), (3600, "red")]),
        ),
        now(
            "Pairs per minute",
            "Accepted pairs, over the last minutes.",
            "short",
            f"60 * {rate('pairforge_pairs_accepted_total')}",
            Steps("green", ()),
        ),
        now(
            "Failed in an hour",
            "Share of the adapters, or of the jobs, that failed of those that ended in the last hour; the greater one.",
            "percentunit",
            "max(pairforge:failure_ratio:increase1h)",
            Steps("green", [(0.05, "yellow"), (0.1, "red")]),
            empty="nothing ended",
        ),
        now(
            "Availability, 6 hours",
            "Share of requests that did not end with a status of 5xx; the objective is 99.5 %.",
            "percentunit",
            "1 - pairforge:api_error_ratio:rate6h",
            Steps("red", [(0.97, "yellow"), (0.995, "green")]),
            empty="no requests",
        ),
        Panel(
            title="Redis",
            description="Whether every API process reaches Redis.",
            unit="short",
            queries=[Query("min(pairforge_redis_up)")],
            look=Look.NUMBER,
            steps=Steps("red", [(1, "green")]),
            texts={"0": ("down", "red"), "1": ("up", "green")},
            empty="unknown",
            width=3,
            height=4,
        ),
        Panel(
            title="Alerts",
            description="What fires now; RUNBOOK.md has a paragraph on each.",
            unit="short",
            queries=[Query('ALERTS{alertname=~"Pairforge.*", alertstate="firing"}')],
            look=Look.TABLE,
            empty="no alert",
            columns={"alertname": "Alert", "severity": "Severity", "kind": "Kind", "instance": "Instance"},
            width=24,
            height=5,
        ),
    ],
)

API = Row(
    "API",
    [
        Panel(
            title="Requests by status",
            description="Answers per second. 503: Redis or the object store is away; 500: a defect.",
            unit="reqps",
            queries=[Query(rate(REQUESTS, "status"), "{{status}}")],
            stacked=True,
            empty="no requests",
        ),
        Panel(
            title="Errors by route",
            description="Answers with a status of 5xx per second.",
            unit="reqps",
            queries=[Query(rate(REQUESTS, "method, route", 'status=~"5.."'), "{{method}} {{route}}")],
            empty=FAULTS,
        ),
        Panel(
            title="Error ratio and budget",
            description="Share of answers with a status of 5xx; the line is what the objective of 99.5 % allows.",
            unit="percentunit",
            queries=[Query(f"pairforge:api_error_ratio:rate{window}", window) for window in ("5m", "30m", "1h", "6h")],
            steps=Steps("green", [(0.005, "red")]),
            empty="no requests",
        ),
        Panel(
            title="Latency",
            description="From the first byte of a request to the last of its answer; streams of events left out.",
            unit="s",
            queries=quantiles(DURATION, WORKING),
            empty="no requests",
        ),
        Panel(
            title="Latency by route, p99",
            description="One request in a hundred takes longer than this.",
            unit="s",
            queries=[Query(quantile(0.99, DURATION, "method, route", WORKING), "{{method}} {{route}}")],
            steps=Steps("green", [(2, "red")]),
            empty="no requests",
        ),
        Panel(
            title="Requests in progress",
            description="Streams of events included: one per client that watches.",
            unit="short",
            queries=[Query("sum(pairforge_http_requests_in_progress)", "in progress")],
        ),
    ],
)

WORK = Row(
    "Work",
    [
        Panel(
            title="Submitted",
            description="Adapters and jobs accepted per second, and uploads that were refused.",
            unit="ops",
            queries=[
                Query(rate("pairforge_records_submitted_total", "kind"), "{{kind}}"),
                Query(rate("pairforge_uploads_refused_total"), "uploads refused"),
            ],
        ),
        Panel(
            title="Ended",
            description="Adapters and jobs per second, by how they ended.",
            unit="ops",
            queries=[Query(rate("pairforge_records_finished_total", "outcome"), "{{outcome}}")],
            stacked=True,
        ),
        Panel(
            title="Pairs",
            description="Accepted and rejected candidates per second, over all workers.",
            unit="ops",
            queries=[
                Query(rate("pairforge_pairs_accepted_total"), "accepted"),
                Query(rejected_candidates(), "rejected"),
            ],
        ),
    ],
)

OVERVIEW = Board(
    uid="pairforge-overview",
    title="Overview",
    description="Is the service well, and is it fast enough?",
    rows=[NOW, API, WORK],
)
