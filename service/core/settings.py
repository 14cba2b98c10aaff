"""The settings of the service, read once from the environment and from files of secrets."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Bytes = Annotated[int, Field(gt=0, description="bytes")]


class Settings(BaseSettings):
    """Each field is the environment variable `PAIRFORGE_<FIELD>`, or a file of that name in lower case in the folder
    that `PAIRFORGE_SECRETS_DIR` names; the environment wins. Times are in seconds.

    Attributes:
        redis_url: the database of records and messages.
        s3_endpoint_url: None for Amazon's own.
        s3_public_endpoint_url: under which clients reach the store, for signed links; None if it is the same.
        base: the base model that adapters are trained on unless they name another.
        device: "auto", or a torch device.
        spool_dir: where uploads and datasets lie for a while; None for the system's folder of temporary files.
        require_keys: whether every request needs an API key; without, only this machine's own requests are served.
        max_pairs, max_normals, max_file_bytes, max_body_bytes, max_pixels, max_total_pixels: limits of one upload.
        max_uploads, max_uploads_per_key: uploads that may be open at once.
        min_free_bytes: of the disk that uploads are kept on; with less than that none is taken.
        body_idle_seconds: how long a client may send nothing of a body that is not complete.
        body_seconds: how long a body may take in all.
        max_streams, max_streams_per_key: streams of events that may be open at once.
        max_num_pairs: greatest number of pairs that one job may ask for.
        max_active_per_key: adapters and jobs of one key that may be queued or running at once.
        max_records_per_key: adapters and jobs of one key, finished ones included.
        max_stored_bytes_per_key: above this a key creates nothing more.
        lease_seconds: how long a worker's hold on a record lasts without renewal.
        max_attempts: starts without any progress after which a record fails.
        link_seconds: how long a signed link works.
        retention_days: how long finished records and their objects are kept.
        reconcile_seconds: time between two looks at what has been lost.
        idempotency_seconds: how long an idempotency key is remembered.
        pairs_per_shard: for every so many pairs one more worker is called to a job.
        max_shards: workers that one job is offered to at most.
        log_format: None for text where stderr is a terminal, and JSON elsewhere.
        log_level: what is less important is not logged; libraries tell nothing below "info".
        metrics_host, metrics_port: where a worker serves its metrics; without a port it does not.
        revision: the commit that this software was built from, told among the metrics.
    """

    model_config = SettingsConfigDict(env_prefix="PAIRFORGE_", frozen=True, extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    s3_endpoint_url: str | None = None
    s3_public_endpoint_url: str | None = None
    s3_bucket: str = "pairforge"
    s3_region: str = "us-east-1"
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    base: str = "mini"
    device: str = "auto"
    spool_dir: Path | None = None
    require_keys: bool = True
    max_pairs: PositiveInt = 64
    max_normals: PositiveInt = 200
    max_file_bytes: Bytes = 20_000_000
    max_body_bytes: Bytes = 200_000_000
    max_pixels: PositiveInt = 4096 * 4096
    max_total_pixels: PositiveInt = 256_000_000
    max_uploads: PositiveInt = 64
    max_uploads_per_key: PositiveInt = 32
    min_free_bytes: Bytes = 500_000_000
    body_idle_seconds: PositiveFloat = 30.0
    body_seconds: PositiveFloat = 900.0
    max_streams: PositiveInt = 256
    max_streams_per_key: PositiveInt = 32
    max_num_pairs: PositiveInt = 10_000
    max_active_per_key: PositiveInt = 20
    max_records_per_key: PositiveInt = 10_000
    max_stored_bytes_per_key: Bytes = 20_000_000_000
    lease_seconds: PositiveFloat = 60.0
    max_attempts: PositiveInt = 3
    link_seconds: Annotated[int, Field(gt=0, le=604_800)] = 900  # the longest that signature version 4 allows
    retention_days: PositiveFloat = 30.0
    reconcile_seconds: PositiveFloat = 5.0
    idempotency_seconds: PositiveInt = 86_400
    pairs_per_shard: PositiveInt = 16
    max_shards: PositiveInt = 4
    log_format: Literal["json", "text"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    revision: str = ""

    @property
    def visibility_timeout(self) -> int:
        """Whole seconds after which the broker delivers an unacknowledged, unrenewed message again."""
        return math.ceil(self.lease_seconds)


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        pydantic.ValidationError: naming every variable whose value cannot be.
    """
    return Settings(_secrets_dir=os.environ.get("PAIRFORGE_SECRETS_DIR"))
