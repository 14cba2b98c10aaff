"""What each worker and its GPU are doing."""

from __future__ import annotations

from deploy.grafana.boards.board import Board, Row, label_variable
from deploy.grafana.boards.panels import FAULTS, Look, Panel, Steps
from deploy.grafana.boards.queries import Query, increase, rate

CHOSEN = 'instance=~"$instance"'
WORKER = f'job="pairforge-worker", {CHOSEN}'
NO_GPU = "no GPU, or no worker that uses one"
NO_DCGM = "dcgm-exporter does not run"
NO_CELERY = "celery-exporter does not run"


def faults(title: str, description: str, counter: str) -> Panel:
    """How often something happened that should not."""
    return Panel(
        title=title,
        description=description,
        unit="short",
        queries=[Query(increase(counter, "kind, instance", CHOSEN), "{{kind}} {{instance}}")],
        empty=FAULTS,
        width=6,
        height=7,
    )


def dcgm(title: str, description: str, unit: str, expr: str, steps: Steps | None = None) -> Panel:
    """A figure of the driver, for each GPU of each machine."""
    return Panel(
        title=title,
        description=f"{description} By dcgm-exporter.",
        unit=unit,
        queries=[Query(expr, "{{Hostname}} GPU {{gpu}}")],
        steps=steps or Steps("green", ()),
        empty=NO_DCGM,
        width=6,
    )


PROCESSES = Row(
    "Workers",
    [
        Panel(
            title="Workers",
            description="Heard of by Redis, and scraped by Prometheus; they should be as many.",
            unit="short",
            queries=[
                Query("max(pairforge_workers)", "heard of"),
                Query('sum(up{job="pairforge-worker"})', "scraped"),
            ],
        ),
        Panel(
            title="Busy",
            description="1 while a worker trains or generates.",
            unit="short",
            queries=[Query(f"pairforge_worker_busy{{{CHOSEN}}}", "{{instance}}")],
            maximum=1,
        ),
        Panel(
            title="Busy share",
            description="Of all workers' time; near 100 % with a growing queue means too few workers.",
            unit="percentunit",
            queries=[Query(f"avg(avg_over_time(pairforge_worker_busy{{{CHOSEN}}}[$__rate_interval]))", "busy")],
            maximum=1,
        ),
        Panel(
            title="Memory",
            description="Resident memory of the process that computes.",
            unit="bytes",
            queries=[Query(f"process_resident_memory_bytes{{{WORKER}}}", "{{instance}}")],
        ),
        Panel(
            title="Processor",
            description="Cores that the process that computes keeps busy.",
            unit="short",
            queries=[Query(f"rate(process_cpu_seconds_total{{{WORKER}}}[$__rate_interval])", "{{instance}}")],
        ),
        Panel(
            title="Lease renewals",
            description="Per second; each held adapter or job is renewed six times per PAIRFORGE_LEASE_SECONDS.",
            unit="ops",
            queries=[Query(rate("pairforge_lease_renewals_total", "kind", CHOSEN), "{{kind}}")],
        ),
    ],
)

SOFTWARE = Row(
    "Software",
    [
        Panel(
            title="Software",
            description="What runs where. Workers of two versions at once are normal only while a deployment lasts.",
            unit="short",
            queries=[Query("pairforge_build_info")],
            look=Look.TABLE,
            columns={
                "component": "Part",
                "instance": "Instance",
                "version": "Version",
                "revision": "Revision",
                "torch": "PyTorch",
                "cuda": "CUDA",
            },
            width=24,
            height=6,
        ),
    ],
)

FAULTS_ROW = Row(
    "Faults",
    [
        faults("Leases lost", "Holds that ran out under a worker at work.", "pairforge_leases_lost_total"),
        faults(
            "Starts after the first",
            "Work begun that had been begun before: after a handover, or after a worker's death.",
            "pairforge_redeliveries_total",
        ),
        faults(
            "Tries again", "Attempts ended by something that may pass, and queued again.", "pairforge_retries_total"
        ),
        faults("Out of memory", "Of the GPU or of the machine.", "pairforge_out_of_memory_total"),
    ],
)

GPU = Row(
    "GPU",
    [
        Panel(
            title="GPU memory of the workers",
            description="What PyTorch holds now, and the most it has held.",
            unit="bytes",
            queries=[
                Query(f"pairforge_gpu_memory_allocated_bytes{{{CHOSEN}}}", "{{instance}} GPU {{gpu}}"),
                Query(f"pairforge_gpu_memory_peak_bytes{{{CHOSEN}}}", "{{instance}} GPU {{gpu}} peak"),
            ],
            empty=NO_GPU,
            width=12,
        ),
        Panel(
            title="GPU utilisation, as workers see it",
            description="Share of time in which the GPU computed.",
            unit="percentunit",
            queries=[Query(f"pairforge_gpu_utilization_ratio{{{CHOSEN}}}", "{{instance}} GPU {{gpu}}")],
            maximum=1,
            empty=NO_GPU,
            width=12,
        ),
        dcgm("Utilisation", "Share of time in which the GPU computed.", "percent", "DCGM_FI_DEV_GPU_UTIL"),
        dcgm(
            "Memory used",
            "Share of the GPU's memory, all processes together.",
            "percentunit",
            "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)",
            Steps("green", [(0.95, "red")]),
        ),
        dcgm(
            "Temperature",
            "Above the line it slows itself down.",
            "celsius",
            "DCGM_FI_DEV_GPU_TEMP",
            Steps("green", [(85, "red")]),
        ),
        dcgm("Power", "What the GPU draws.", "watt", "DCGM_FI_DEV_POWER_USAGE"),
    ],
)

CELERY = Row(
    "Celery",
    [
        Panel(
            title="Tasks in work",
            description="As Celery's own events tell it.",
            unit="short",
            queries=[Query("sum by (hostname) (celery_worker_tasks_active)", "{{hostname}}")],
            empty=NO_CELERY,
            width=12,
        ),
        Panel(
            title="Tasks ended",
            description="Per second, by task. A task fails only by a defect; records tell how adapters and jobs ended.",
            unit="ops",
            queries=[
                Query(rate("celery_task_succeeded_total", "name"), "{{name}} succeeded"),
                Query(rate("celery_task_failed_total", "name"), "{{name}} failed"),
            ],
            empty=NO_CELERY,
            width=12,
        ),
    ],
)

WORKERS = Board(
    uid="pairforge-workers",
    title="Workers and GPU",
    description="What each worker and its GPU are doing.",
    rows=[PROCESSES, FAULTS_ROW, GPU, CELERY, SOFTWARE],
    variables=[label_variable("instance", "Worker", 'up{job="pairforge-worker"}')],
)
