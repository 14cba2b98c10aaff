"""How adapters and jobs get on, and what their time goes into."""

from __future__ import annotations

from deploy.grafana.boards.board import Board, Row, label_variable
from deploy.grafana.boards.panels import FAULTS, Look, Panel, Steps
from deploy.grafana.boards.queries import Query, gained, increase, quantile, quantiles, rate, rejected_candidates

KIND = 'kind=~"$kind"'
IDLE = "no work in this time"


def by_kind(histogram: str, where: str = KIND) -> list[Query]:
    """Median and tail for adapters and for jobs."""
    return [
        Query(quantile(share, histogram, "kind", where), f"{{{{kind}}}} p{share * 100:.0f}") for share in (0.5, 0.95)
    ]


RECORDS = Row(
    "Records",
    [
        Panel(
            title=f"{kind.capitalize()}s by state",
            description=f"How many {kind}s there are; finished ones leave after PAIRFORGE_RETENTION_DAYS.",
            unit="short",
            queries=[Query(f'max by (state) (pairforge_records{{kind="{kind}"}})', "{{state}}")],
        )
        for kind in ("adapter", "job")
    ]
    + [
        Panel(
            title="Ended",
            description="By how they ended. Users cancel; see the error in the record of what failed.",
            unit="short",
            queries=[Query(increase("pairforge_records_finished_total", "outcome", KIND), "{{outcome}}")],
            stacked=True,
        ),
    ],
)

TIMES = Row(
    "Times",
    [
        Panel(
            title="Queue wait",
            description="From entering the queue until a worker takes it. Long waits mean too few workers.",
            unit="s",
            queries=by_kind("pairforge_queue_wait_seconds"),
            empty=IDLE,
        ),
        Panel(
            title="Run time",
            description="How long a worker held what then succeeded.",
            unit="s",
            queries=by_kind("pairforge_run_seconds", f'{KIND}, outcome="succeeded"'),
            empty=IDLE,
        ),
        Panel(
            title="Longest wait now",
            description="How long the first in the queue has waited; 0 where nothing waits.",
            unit="s",
            queries=[Query(f"max by (kind) (pairforge_oldest_queued_seconds{{{KIND}}})", "{{kind}}")],
            steps=Steps("green", [(900, "yellow"), (3600, "red")]),
        ),
    ],
)

PAIRS = Row(
    "Pairs",
    [
        Panel(
            title="Accepted in the time shown",
            description="Without what a killed worker had not told yet; the records have the exact numbers.",
            unit="short",
            queries=[Query(gained("pairforge_pairs_accepted_total"))],
            look=Look.NUMBER,
            empty=IDLE,
            width=12,
            height=4,
        ),
        Panel(
            title="Share accepted in the time shown",
            description="Of the candidates that were judged.",
            unit="percentunit",
            queries=[
                Query(
                    f"{gained('pairforge_pairs_accepted_total')} / ({gained('pairforge_candidates_judged_total')} > 0)"
                )
            ],
            look=Look.NUMBER,
            empty=IDLE,
            width=12,
            height=4,
        ),
        Panel(
            title="Pairs per second",
            description="Accepted and rejected, over all workers.",
            unit="ops",
            queries=[
                Query(rate("pairforge_pairs_accepted_total"), "accepted"),
                Query(rejected_candidates(), "rejected"),
            ],
        ),
        Panel(
            title="Rejected by reason",
            description="Reasons per second; a candidate counts under each that it has.",
            unit="ops",
            queries=[Query(rate("pairforge_pairs_rejected_total", "reason"), "{{reason}}")],
            stacked=True,
        ),
        Panel(
            title="Seconds per candidate",
            description="What sampling takes, shared out over the candidates of a batch.",
            unit="s",
            queries=quantiles("pairforge_pair_seconds"),
            empty=IDLE,
        ),
        Panel(
            title="Time by stage",
            description="Seconds of work per second, over all workers: what the time goes into.",
            unit="short",
            queries=[Query(rate("pairforge_stage_seconds_sum", "stage"), "{{stage}}")],
            stacked=True,
        ),
        Panel(
            title="Stages, p95",
            description="How long a stage takes, except for one in twenty.",
            unit="s",
            queries=[Query(quantile(0.95, "pairforge_stage_seconds", "stage"), "{{stage}}")],
            empty=IDLE,
        ),
        Panel(
            title="Batch size",
            description="Candidates sampled together, on average; less than asked for where memory is short.",
            unit="short",
            queries=[
                Query(
                    f"{rate('pairforge_generation_batch_size_sum')} / {rate('pairforge_generation_batch_size_count')}",
                    "candidates",
                )
            ],
            empty=IDLE,
        ),
    ],
)

TRAINING = Row(
    "Training",
    [
        Panel(
            title="Steps per second",
            description="Over all workers.",
            unit="ops",
            queries=[Query(rate("pairforge_training_steps_total"), "steps")],
        ),
        Panel(
            title="Seconds per step",
            description="Forward, backward and the optimiser's step.",
            unit="s",
            queries=quantiles("pairforge_training_step_seconds"),
            empty=IDLE,
        ),
        Panel(
            title="Loss",
            description="Smoothed, of the training that each worker has in hand. NaN: the training diverged.",
            unit="short",
            queries=[Query("pairforge_training_loss != 0", "{{instance}}")],
            empty=IDLE,
        ),
        Panel(
            title="Checkpoints",
            description="Stored within each step of the graph. Without any, a worker's death costs the whole training.",
            unit="short",
            queries=[Query(increase("pairforge_checkpoints_total"), "checkpoints")],
        ),
        Panel(
            title="Seconds per checkpoint",
            description="Storing one; the training goes on meanwhile.",
            unit="s",
            queries=quantiles("pairforge_checkpoint_seconds"),
            empty=IDLE,
        ),
        Panel(
            title="Given up",
            description="Failed for too many starts without progress.",
            unit="short",
            queries=[Query(increase("pairforge_poisoned_total", "kind", KIND), "{{kind}}")],
            empty=FAULTS,
        ),
    ],
)

WORK = Board(
    uid="pairforge-work",
    title="Jobs and pairs",
    description="How adapters and jobs get on, and what their time goes into.",
    rows=[RECORDS, TIMES, PAIRS, TRAINING],
    variables=[label_variable("kind", "Kind", "pairforge_records")],
)
