"""Stores checkpoints in the object store: first the files, then the pointer in the record; then older ones are deleted.

Another thread uploads them one at a time, while training continues; a newer checkpoint replaces a waiting one.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from model.training.checkpoint import read_record
from model.training.clock import CLOCK_FILE
from service.core import object_keys
from service.core.errors import TransientError
from service.core.record import Record
from service.core.storage import MissingObject
from worker.attempt.context import Context
from worker.attempt.lease import Lease, StopError
from worker.attempt.retry import retry

log = structlog.stdlib.get_logger(__name__)

CURVE_POINTS = 500
"""Most points of the loss curve in a record during training; the result has all of them."""


@dataclass(frozen=True, slots=True)
class _Staged:
    step: int
    folder: Path
    sample: bytes | None


class Checkpoints:
    """Uploads and restores the checkpoints of one training.

    Args:
        folder: the library's workspace.
        staging: folder of files that wait for upload, on the same file system.

    Attributes:
        samples: step → object key of its sample sheet, made by this attempt or an earlier one.
        restored: whether this attempt goes on from a checkpoint.
    """

    def __init__(self, context: Context, record: Record, lease: Lease, folder: Path, staging: Path) -> None:
        self._context = context
        self._record = record
        self._lease = lease
        self._folder = folder
        self._staging = staging
        self._waiting: _Staged | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._last: Future[None] | None = None
        self.restored = False
        self.samples: dict[int, str] = {
            int(step): key for step, key in (record.checkpoint or {}).get("samples", {}).items()
        }

    def restore(self) -> int:
        """Fetch the checkpoint that the record points to; returns its step, 0 without one.

        If the object store has lost it, or was restored from an older copy, its steps are trained again.
        """
        pointer = self._record.checkpoint
        if pointer is None or "files" not in pointer:
            return 0
        step, adapter = int(pointer["step"]), self._record.id
        aside, target = self._folder / f".step-{step:07d}.part", self._folder / f"step-{step:07d}"
        aside.mkdir(parents=True, exist_ok=True)
        try:
            for name in pointer["files"]:
                place = self._folder if name == CLOCK_FILE else aside
                self._fetch(object_keys.checkpoint(adapter, step, pointer["owner"], name), place / name)
        except MissingObject as error:
            log.warning("checkpoint_missing", step=step, object=str(error))
            shutil.rmtree(self._folder)
            self.samples.clear()
            return 0
        aside.rename(target)
        self.restored = True
        return step

    def _fetch(self, key: str, path: Path) -> None:
        retry(lambda: self._context.objects.download(key, path), self._lease.check)

    def offer(self, step: int, checkpoint: Path, sample: bytes | None) -> None:
        """Upload a checkpoint when its turn comes.

        Args:
            checkpoint: its folder, which is no longer needed when this returns.
            sample: its sample sheet, as PNG.
        """
        folder = self._staging / f"{step:07d}"
        # Hard links need no copy, and survive when the library removes the checkpoint.
        shutil.copytree(checkpoint, folder, copy_function=os.link)
        if (self._folder / CLOCK_FILE).is_file():
            shutil.copyfile(self._folder / CLOCK_FILE, folder / CLOCK_FILE)
        with self._lock:
            replaced, self._waiting = self._waiting, _Staged(step, folder, sample)
        if replaced is not None:
            shutil.rmtree(replaced.folder)
        self._last = self._thread.submit(copy_context().run, self._upload)
        self._last.add_done_callback(self._log_error)

    def flush(self) -> None:
        """Wait until all offered checkpoints are uploaded, or the lease ends."""
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """Drop a waiting checkpoint, and wait for the current upload."""
        with self._lock:
            self._waiting = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _upload(self) -> None:
        with self._lock:
            staged, self._waiting = self._waiting, None
        if staged is None:
            return
        try:
            self._store(staged)
        except StopError:
            log.info("checkpoint_dropped", step=staged.step)
        except (TransientError, RedisError) as error:
            log.warning("checkpoint_not_stored", step=staged.step, error=repr(error))
        finally:
            shutil.rmtree(staged.folder, ignore_errors=True)

    def _log_error(self, upload: Future[None]) -> None:
        if not upload.cancelled() and (error := upload.exception()) is not None:
            log.error("checkpoint_broke", record=self._record.id, exc_info=error)

    def _store(self, staged: _Staged) -> None:
        began = time.perf_counter()
        adapter, step, owner = self._record.id, staged.step, self._lease.owner
        names = sorted(path.name for path in staged.folder.iterdir())
        for name in names:
            self._put(
                object_keys.checkpoint(adapter, step, owner, name), staged.folder / name, "application/octet-stream"
            )
        if staged.sample is not None:
            key = object_keys.sample(adapter, step, owner)
            self._put(key, staged.sample, "image/png")
            self.samples[step] = key
        pointer: dict[str, Any] = {
            "step": step,
            "owner": owner,
            "files": names,
            "samples": self.samples,
            "loss": thinned(read_record(staged.folder)[1]["curve"]),
        }
        save = self._context.store.claims.save_checkpoint
        if retry(lambda: save(adapter, owner, pointer), self._lease.check_unless_handover):
            self._context.metrics.checkpoints.inc()
            self._context.metrics.checkpoint.observe(time.perf_counter() - began)
            self._delete_others(object_keys.checkpoint(adapter, step, owner))

    def _put(self, key: str, content: Path | bytes, content_type: str) -> None:
        retry(
            lambda: self._context.objects.put(key, content, content_type=content_type),
            self._lease.check_unless_handover,
        )

    def _delete_others(self, newest: str) -> None:
        """Delete the checkpoints before the newest; later ones belong to an attempt that has taken over."""
        folder = f"{object_keys.prefix(self._record.id)}checkpoints/"
        step = newest.removeprefix(folder).partition("-")[0]
        found = {f"{each.key.rpartition('/')[0]}/" for each in self._context.objects.list(folder)}
        for other in sorted(found - {newest}):
            if other.removeprefix(folder).partition("-")[0] <= step:
                self._context.objects.delete_prefix(other)


def thinned(curve: list[list[float]], points: int = CURVE_POINTS) -> list[list[float]]:
    """Thin a curve to at most `points` points, evenly spread, always with the last one."""
    stride = -(-len(curve) // points) or 1
    return curve[::-1][::stride][::-1]
