"""The data folder of an embedded stack: Redis' files, the objects, logs, and the secrets between its processes.

credentials.json   made once, readable by the owner only
running.json       addresses of the stack; exists while it runs
prometheus-targets.json
                   addresses of its metrics, for Prometheus' `file_sd_configs`; exists while it runs
lock               locked while it runs
redis/  objects/  spool/  logs/  metrics/
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from service.core.errors import UsageError
from service.core.strict_json import to_json

BUCKET = "pairforge"

TARGETS_FILE = "prometheus-targets.json"

SUBFOLDERS = ("redis", "objects", f"objects/{BUCKET}", "spool", "logs", "metrics")
"""A bucket is a folder of the objects' folder."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets between the stack's own processes, made once per folder."""

    redis_password: str
    s3_access_key_id: str
    s3_secret_access_key: str


@dataclass(frozen=True, slots=True)
class Running:
    """Addresses of a running stack.

    Attributes:
        pid: the process that supervises it.
        url: address of the API.
        environment: the settings of its API and workers.
        worker_metrics: URLs of the workers' metrics.
    """

    pid: int
    url: str
    environment: dict[str, str]
    worker_metrics: list[str]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Prometheus' targets, by job: <https://prometheus.io/docs/guides/file-sd/>."""
        jobs = {"pairforge-api": [self.url], "pairforge-worker": self.worker_metrics}
        return [
            {"targets": [urlsplit(url).netloc for url in urls], "labels": {"job": job}} for job, urls in jobs.items()
        ]


def default_data_dir() -> Path:
    """Return the folder `pairforge` in the user's data folder (XDG base directories)."""
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "pairforge"


class DataFolder:
    """A data folder, created if it is missing and locked until `close`.

    Raises:
        UsageError: it cannot be used, or another stack runs in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        try:
            self._make()
            self._lock = _hold(self.path)
        except OSError as error:
            raise UsageError(f"the data folder {self.path} cannot be used: {error.strerror}") from error

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def credentials(self) -> Credentials:
        """Read the folder's credentials, which the first call creates."""
        path = self.path / "credentials.json"
        if not path.exists():
            made = Credentials(secrets.token_urlsafe(32), secrets.token_hex(10), secrets.token_urlsafe(32))
            write_private(path, asdict(made))
        try:
            return Credentials(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path} is damaged: restore it from a copy, or give another --data-dir") from error

    def clear_scratch(self) -> None:
        """Delete the unfinished files of killed processes; finished work is in Redis and the object store."""
        shutil.rmtree(self.path / "spool")
        (self.path / "spool").mkdir(mode=0o700)

    def announce(self, running: Running) -> None:
        """Publish the addresses of the stack for other commands and Prometheus."""
        write_private(self.path / TARGETS_FILE, running.targets)
        write_private(self.path / "running.json", asdict(running))

    def close(self) -> None:
        """Withdraw the addresses and unlock the folder."""
        for name in ("running.json", TARGETS_FILE):
            (self.path / name).unlink(missing_ok=True)
        self._lock.close()

    def _make(self) -> None:
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "lock").exists():
            raise UsageError(
                f"{self.path} contains files that are not a stack's: give an empty or new folder as --data-dir"
            )
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in SUBFOLDERS:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)


def find_running(path: Path) -> Running | None:
    """Find the stack that runs in a folder and is ready."""
    folder = path.expanduser().resolve()
    try:
        running = Running(**json.loads((folder / "running.json").read_text(encoding="utf-8")))
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return running
    except OSError:
        return None
    # Nobody holds the lock: the stack was killed before it could withdraw its addresses.
    return None


def write_private(path: Path, content: object) -> None:
    """Write JSON that only its owner can read, atomically."""
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(to_json(content))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _hold(folder: Path) -> IO[str]:
    lock = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise UsageError(
            f"pairforge up (process {holder}) already runs in {folder}: "
            "use that one, stop it, or give another --data-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
