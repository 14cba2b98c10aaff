"""Builds the commands of a stack's processes, and checks that its servers respond."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import httpx2
import redis

from service.embedded.folder import BUCKET, Credentials
from service.embedded.parent_death import PYTHON
from service.embedded.ports import join
from service.embedded.processes import Command

LOOPBACK = "127.0.0.1"

API_PATIENCE, WORKER_PATIENCE, SERVER_PATIENCE = 15.0, 45.0, 20.0
"""Seconds that the API gets to finish its responses, a worker to save its work, and a server to write its files."""

API_GRACE = 5
"""Seconds that event streams may continue after the API was asked to stop."""


def redis_command(program: Path, folder: Path, port: int, password: str) -> Command:
    """Build the command of a Redis in `folder` that has every write on disk before it answers.

    The password is passed in a file, because all users of the machine see a process's arguments.
    """
    settings = [
        f"bind {LOOPBACK}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{_quoted(folder)}"',
        "daemonize no",
        # A title would overwrite the environment, which identifies the processes of a stack.
        "set-proc-title no",
        "appendonly yes",
        "appendfsync always",
        'save ""',
        "maxmemory-policy noeviction",
    ]
    config = folder / "redis.conf"
    config.touch(mode=0o600)
    config.write_text("\n".join(settings) + "\n", encoding="utf-8")
    return Command("redis", [str(program), str(config)], patience=SERVER_PATIENCE)


def s3_command(program: Path, objects: Path, host: str, port: int, credentials: Credentials) -> Command:
    """Build the command of an S3 server whose buckets are the folders in `objects`."""
    key = f'"{credentials.s3_access_key_id},{credentials.s3_secret_access_key}"'
    arguments = ["serve", "s3", "--config", "", "--addr", join(host, port), "--no-cleanup", str(objects)]
    return Command("s3", [str(program), *arguments], {"RCLONE_AUTH_KEY": key}, SERVER_PATIENCE)


def api_command(host: str, port: int, settings: Mapping[str, str]) -> Command:
    arguments = ["--factory", "service.main:create_app", "--host", host, "--port", str(port)]
    arguments += [
        "--http",
        "service.api.http:LimitedProtocol",
        "--no-access-log",
        "--no-server-header",
        "--timeout-graceful-shutdown",
        str(API_GRACE),
    ]
    return Command("api", [*PYTHON, "uvicorn", *arguments], settings, API_PATIENCE)


def worker_command(number: int, of: int, settings: Mapping[str, str], metrics: Path, metrics_port: int) -> Command:
    """Build the command of one of several workers, which share the processor's cores.

    Args:
        metrics: folder of all workers' metrics; each worker has a subfolder.
    """
    name = f"worker-{number}"
    arguments = ["-A", "worker.app", "worker", "-Q", "train,generate", "-c", "1", "-n", f"{name}@%h"]
    arguments += ["--without-gossip", "--without-mingle"]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // of)))
    compiled = os.environ.get("TORCHINDUCTOR_CACHE_DIR", f"{settings['PAIRFORGE_SPOOL_DIR']}/compiled")
    environment = {
        **settings,
        "OMP_NUM_THREADS": threads,
        "PROMETHEUS_MULTIPROC_DIR": str(metrics / name),
        "PAIRFORGE_METRICS_HOST": LOOPBACK,
        "PAIRFORGE_METRICS_PORT": str(metrics_port),
        # The workers share what they compile for a GPU, and keep it between runs.
        "TORCHINDUCTOR_CACHE_DIR": compiled,
        "TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR", f"{compiled}/triton"),
    }
    return Command(name, [*PYTHON, "celery", *arguments], environment, WORKER_PATIENCE)


def service_settings(
    folder: Path, credentials: Credentials, redis_port: int, s3_address: str, *, require_keys: bool
) -> dict[str, str]:
    """Build the environment of API and workers."""
    settings = {
        "PAIRFORGE_REDIS_URL": f"redis://:{credentials.redis_password}@{LOOPBACK}:{redis_port}/0",
        "PAIRFORGE_S3_ENDPOINT_URL": f"http://{s3_address}",
        "PAIRFORGE_S3_PUBLIC_ENDPOINT_URL": f"http://{s3_address}",
        "PAIRFORGE_S3_BUCKET": BUCKET,
        "PAIRFORGE_S3_REGION": "us-east-1",
        "PAIRFORGE_S3_ACCESS_KEY_ID": credentials.s3_access_key_id,
        "PAIRFORGE_S3_SECRET_ACCESS_KEY": credentials.s3_secret_access_key,
        "PAIRFORGE_SPOOL_DIR": str(folder / "spool"),
        "PAIRFORGE_REQUIRE_KEYS": str(require_keys).lower(),
        # People read the logs of this stack, although they are written to files.
        "PAIRFORGE_LOG_FORMAT": os.environ.get("PAIRFORGE_LOG_FORMAT", "text"),
        # A proxy is only for addresses outside this machine.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), LOOPBACK, "localhost", "::1"])),
    }
    # The processes run in the data folder, so the path of a base must be absolute.
    if (base := os.environ.get("PAIRFORGE_BASE", "")) and Path(base).is_dir():
        settings["PAIRFORGE_BASE"] = str(Path(base).resolve())
    return settings


def redis_serves(port: int, password: str) -> bool:
    """Whether Redis answers and has loaded its data."""
    with redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def accepts(host: str, port: int) -> bool:
    """Whether a server accepts connections at this address."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def api_is_ready(url: str) -> bool:
    """Whether the API answers and everything it needs is available."""
    try:
        return httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
