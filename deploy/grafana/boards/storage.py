"""Redis, which holds records and queues, the object store, and disks."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.grafana.boards.board import Board, Row
from deploy.grafana.boards.panels import FAULTS, Look, Panel, Steps
from deploy.grafana.boards.queries import Query, quantile, rate

GOOD_AT_ONE = Steps("red", [(1, "green")])


def state(title: str, description: str, expr: str, texts: Mapping[str, tuple[str, str]]) -> Panel:
    """Whether something is well: 0 or 1."""
    return Panel(
        title=title,
        description=description,
        unit="short",
        queries=[Query(expr)],
        look=Look.NUMBER,
        steps=GOOD_AT_ONE,
        texts=texts,
        empty="unknown: is Redis there?",
        width=4,
        height=4,
    )


FAILED_OR_OK = {"0": ("failed", "red"), "1": ("ok", "green")}

NOW = Row(
    "Now",
    [
        state(
            "Redis",
            "Whether every API process reaches it.",
            "min(pairforge_redis_up)",
            {"0": ("down", "red"), "1": ("up", "green")},
        ),
        state(
            "Log written",
            "The last write of Redis' append-only file. While it fails, Redis refuses changes.",
            "min(pairforge_redis_aof_last_write_ok)",
            FAILED_OR_OK,
        ),
        state(
            "Log rewritten",
            "The last rewrite of Redis' append-only file; without it the file grows.",
            "min(pairforge_redis_aof_last_rewrite_ok)",
            FAILED_OR_OK,
        ),
        Panel(
            title="Redis' memory, of its limit",
            description="At the limit Redis refuses every write.",
            unit="percentunit",
            queries=[Query("max(pairforge_redis_memory_bytes) / (max(pairforge_redis_memory_max_bytes) > 0)")],
            look=Look.NUMBER,
            steps=Steps("green", [(0.7, "yellow"), (0.8, "red")]),
            empty="no limit",
            width=4,
            height=4,
        ),
        Panel(
            title="Last round of the reconciler",
            description="How long ago; rounds begin every few seconds and put right what dead processes left behind.",
            unit="s",
            queries=[Query("time() - max(pairforge_reconciled_timestamp_seconds)")],
            look=Look.NUMBER,
            steps=Steps("green", [(60, "yellow"), (120, "red")]),
            empty="never ended",
            width=4,
            height=4,
        ),
        Panel(
            title="S3 errors",
            description="Share of the object store's operations that failed, over ten minutes.",
            unit="percentunit",
            queries=[Query("pairforge:s3_error_ratio:rate10m")],
            look=Look.NUMBER,
            steps=Steps("green", [(0.001, "yellow"), (0.01, "red")]),
            empty="no operations",
            width=4,
            height=4,
        ),
    ],
)

REDIS = Row(
    "Redis",
    [
        Panel(
            title="Latency by command, p99",
            description="As API and workers see it, network and repeated tries included.",
            unit="s",
            queries=[Query(quantile(0.99, "pairforge_redis_operation_seconds", "command"), "{{command}}")],
            steps=Steps("green", [(0.1, "red")]),
        ),
        Panel(
            title="Commands",
            description="Per second.",
            unit="ops",
            queries=[Query(rate("pairforge_redis_operation_seconds_count", "command"), "{{command}}")],
            stacked=True,
        ),
        Panel(
            title="Errors",
            description="Commands per second that Redis failed or refused.",
            unit="ops",
            queries=[Query(rate("pairforge_redis_errors_total", "job, error"), "{{job}} {{error}}")],
            empty=FAULTS,
        ),
        Panel(
            title="Memory",
            description="What Redis uses, and what it may use at most (0: no limit).",
            unit="bytes",
            queries=[
                Query("max(pairforge_redis_memory_bytes)", "used"),
                Query("max(pairforge_redis_memory_max_bytes)", "limit"),
            ],
        ),
    ],
)

QUEUES = Row(
    "Queues",
    [
        Panel(
            title="Queues",
            description="Messages that wait in the broker. A message is a hint: the records say what is to be done.",
            unit="short",
            queries=[Query("max by (queue) (pairforge_queue_messages)", "{{queue}}")],
        ),
        Panel(
            title="Taken and not acknowledged",
            description="Messages that workers hold; they come back when a worker dies.",
            unit="short",
            queries=[Query("max(pairforge_unacknowledged_messages)", "messages")],
        ),
        Panel(
            title="Queues, as Celery counts them",
            description="By celery-exporter.",
            unit="short",
            queries=[Query("max by (queue_name) (celery_queue_length)", "{{queue_name}}")],
            empty="celery-exporter does not run",
        ),
    ],
)

OBJECTS = Row(
    "Object store",
    [
        Panel(
            title="Latency by operation, p99",
            description="All tries included; downloads until their first byte.",
            unit="s",
            queries=[Query(quantile(0.99, "pairforge_s3_operation_seconds", "operation"), "{{operation}}")],
        ),
        Panel(
            title="Operations",
            description="Per second.",
            unit="ops",
            queries=[Query(rate("pairforge_s3_operation_seconds_count", "operation"), "{{operation}}")],
            stacked=True,
        ),
        Panel(
            title="S3 errors by operation and code",
            description="Operations per second that the store failed or refused.",
            unit="ops",
            queries=[Query(rate("pairforge_s3_errors_total", "operation, code"), "{{operation}} {{code}}")],
            empty=FAULTS,
        ),
    ],
)

DISKS = Row(
    "Disks",
    [
        Panel(
            title="Free, of the disk",
            description="Of the disk under each process's folder of temporary files.",
            unit="percentunit",
            queries=[Query("pairforge_disk_free_bytes / pairforge_disk_size_bytes", "{{job}} {{instance}} {{mount}}")],
            look=Look.BARS,
            steps=Steps("red", [(0.1, "yellow"), (0.2, "green")]),
            maximum=1,
            width=12,
        ),
        Panel(
            title="Free",
            description="Room on the disk under each process's folder of temporary files.",
            unit="bytes",
            queries=[Query("pairforge_disk_free_bytes", "{{job}} {{instance}} {{mount}}")],
            width=12,
        ),
    ],
)

STORAGE = Board(
    uid="pairforge-storage",
    title="Storage and broker",
    description="Redis, which holds records and queues, the object store, and disks.",
    rows=[NOW, REDIS, QUEUES, OBJECTS, DISKS],
)
