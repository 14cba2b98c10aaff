"""A real Celery worker in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from service.core.settings import Settings
from worker.monitoring.heartbeat import is_stopping


class CeleryWorker:
    """Started as in production; killed as by a power cut, or asked to end."""

    def __init__(self, settings: Settings, folder: Path, name: str = "worker") -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / f"{name}.log"
        self._name = name
        self._folder = folder
        self._environment = {
            **os.environ,
            **_environment(settings),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / f"{name}-metrics"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "celery", "-A", "worker.app", "worker"]
        command += ["-Q", "train,generate", "-c", "1", "-n", f"{self._name}@%h"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """The whole group, at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)

    def stall(self) -> None:
        """Stop the whole group where it stands, as a machine that is suspended."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def is_ending(self) -> bool:
        """Whether it has passed on to its children that it was asked to end."""
        assert self._process is not None
        return is_stopping(self._process.pid)

    def terminate(self) -> int:
        """Ask it to end; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def end(self) -> None:
        """Whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def children(self) -> list[int]:
        """The processes that run its tasks."""
        assert self._process is not None
        parent = self._process.pid
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        return [int(word) for word in listed.split()]


def _environment(settings: Settings) -> dict[str, str]:
    access, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    assert access is not None
    assert secret is not None
    assert settings.s3_endpoint_url is not None
    root = Path(__file__).resolve().parents[2]
    return {
        "PYTHONPATH": str(root),
        "PAIRFORGE_REDIS_URL": settings.redis_url,
        "PAIRFORGE_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "PAIRFORGE_S3_ACCESS_KEY_ID": access.get_secret_value(),
        "PAIRFORGE_S3_SECRET_ACCESS_KEY": secret.get_secret_value(),
        "PAIRFORGE_BASE": settings.base,
        "PAIRFORGE_DEVICE": settings.device,
        "PAIRFORGE_SPOOL_DIR": str(settings.spool_dir),
        "PAIRFORGE_LEASE_SECONDS": str(settings.lease_seconds),
        "PAIRFORGE_RETRY_SECONDS": str(settings.retry_seconds),
        "PAIRFORGE_MAX_DEATHS": str(settings.max_deaths),
        **({"PAIRFORGE_METRICS_PORT": str(settings.metrics_port)} if settings.metrics_port else {}),
    }
