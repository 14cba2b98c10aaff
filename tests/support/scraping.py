"""Reading metrics as Prometheus does."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families

SHARED_FAMILIES = {
    "records_finished": "counter",
    "poisoned": "counter",
    "s3_operation_seconds": "histogram",
    "redis_operation_seconds": "histogram",
    "redis_errors": "counter",
    "disk_free_bytes": "gauge",
    "disk_size_bytes": "gauge",
    "build_info": "gauge",
    "process_resident_memory_bytes": "gauge",
}
"""What API and workers tell alike."""


class Scraped:
    """The samples of one endpoint at one time."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.types = {family.name.removeprefix("pairforge_"): family.type for family in families}
        self._samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name, without its prefix, that have these labels; 0 without any."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"pairforge_{name}" and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        """Of all samples of that name, without its prefix."""
        return [sample.labels for sample in self._samples if sample.name == f"pairforge_{name}"]


def scrape(url: str) -> Scraped:
    answer = httpx2.get(url, timeout=30, trust_env=False)
    assert answer.status_code == 200
    return Scraped(answer.text)
