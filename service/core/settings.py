"""The settings of the service, read once from the environment and from secret files."""

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
        redis_url: database of records and messages.
        s3_endpoint_url: address of the object store; None for Amazon S3.
        s3_public_endpoint_url: address of the store for clients, in signed links; None if it is the same.
        base: default base model of adapters.
        device: "auto", or a torch device.
        spool_dir: folder of uploads and unfinished work; None for the system's folder of temporary files.
        page: serve the page at `/`; everything it does goes through the API, which is served in any case.
        require_keys: require an API key of every request; without it, only requests from this machine are served.
        cors_origins: web pages of which addresses may use the API, separated by commas; none without.
        webhook_hosts: hosts, with their ports if need be, that webhooks may be sent to, separated by commas.
        webhook_secret: what webhooks are signed with; none are sent without.
        max_pairs, max_normals, max_file_bytes, max_body_bytes, max_pixels, max_total_pixels: limits of one upload.
        max_held_out, max_held_out_normals: most held-out pairs and normal images of one upload.
        max_uploads, max_uploads_per_key: limits of concurrent uploads.
        min_free_bytes: space that uploads must leave free on their disk.
        body_idle_seconds: longest time without data while a body is received.
        body_seconds: longest time to receive a body.
        max_streams, max_streams_per_key: limits of concurrent event streams.
        max_num_pairs: most pairs that one job may request.
        max_active_per_key: quota of queued and running adapters and jobs.
        max_creates_per_minute_per_key: requests per minute that create an adapter or a job.
        max_training_work, max_sampling_work: limits of the work of one adapter or job (see `service.core.work`).
        max_work_per_key: quota of the work of queued and running adapters and jobs.
        max_run_seconds: longest time that a worker works on a record at a stretch.
        max_records_per_key: quota of adapters and jobs, finished ones included.
        max_stored_bytes_per_key: quota of stored data.
        lease_seconds: duration of a worker's lease on a record without renewal.
        max_attempts: starts after which a record fails that made no progress, by errors that may pass.
        max_deaths: deaths of its worker after which a record fails that made no progress.
        retry_seconds: pause before a record is started again after an error; it doubles with each.
        link_seconds: validity of signed links.
        retention_days: how long finished records and their objects are kept.
        reconcile_seconds: time between two rounds of the reconciler.
        idempotency_seconds: how long an idempotency key is remembered.
        pairs_per_shard: number of pairs for which a job is offered to one more worker.
        max_shards: most workers that one job is offered to.
        log_format: None means text if stderr is a terminal, else JSON.
        log_level: lowest level that is logged; libraries never log below "info".
        metrics_host, metrics_port: address of a worker's metrics; without a port it serves none.
        revision: commit that this software was built from, for the metrics.
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
    page: bool = True
    require_keys: bool = True
    cors_origins: str = ""
    webhook_hosts: str = ""
    webhook_secret: SecretStr | None = None
    max_pairs: PositiveInt = 64
    max_normals: PositiveInt = 200
    max_held_out: PositiveInt = 200
    max_held_out_normals: PositiveInt = 200
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
    max_creates_per_minute_per_key: PositiveInt = 120
    max_training_work: PositiveInt = 100 * 10**9
    max_sampling_work: PositiveInt = 2_000 * 10**9
    max_work_per_key: PositiveInt = 4_000 * 10**9
    max_run_seconds: PositiveFloat = 172_800.0
    max_records_per_key: PositiveInt = 10_000
    max_stored_bytes_per_key: Bytes = 20_000_000_000
    lease_seconds: PositiveFloat = 60.0
    max_attempts: PositiveInt = 3
    max_deaths: PositiveInt = 10
    retry_seconds: PositiveFloat = 30.0
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
        """Seconds after which the broker redelivers a message that was neither acknowledged nor renewed."""
        return math.ceil(self.lease_seconds)


def load_settings() -> Settings:
    """Load the settings of this process.

    Raises:
        pydantic.ValidationError: names every variable with an invalid value.
    """
    return Settings(_secrets_dir=os.environ.get("PAIRFORGE_SECRETS_DIR"))
