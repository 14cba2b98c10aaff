"""PromQL that most panels are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called; `{{label}}` in `legend` is the value of a label."""

    expr: str
    legend: str = ""


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Per second, summed over everything but the labels `by`."""
    return f"{_sum(by)} (rate({_selected(metric, where)}[$__rate_interval]))"


def increase(metric: str, by: str = "", where: str = "") -> str:
    """How much came within each step of the graph; for what happens rarely."""
    return f"{_sum(by)} (increase({_selected(metric, where)}[$__rate_interval]))"


def gained(metric: str) -> str:
    """How much came in the time that is shown: workers that start again count from 0, so a plain sum tells less."""
    return f"sum(increase({metric}[$__range]))"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """What the given share of observations stays below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', labels, where)})"


def quantiles(histogram: str, where: str = "") -> list[Query]:
    """Median and tail of a histogram."""
    return [Query(quantile(percent / 100, histogram, where=where), f"p{percent}") for percent in (50, 95, 99)]


def rejected_candidates() -> str:
    """Per second; a candidate with several reasons counts once."""
    return f"{rate('pairforge_candidates_judged_total')} - {rate('pairforge_pairs_accepted_total')}"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"


def _selected(metric: str, where: str) -> str:
    return f"{metric}{{{where}}}" if where else metric
