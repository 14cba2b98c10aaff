"""Uploads files in a way that can be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextvars import copy_context
from pathlib import Path

from service.core.storage import ObjectStore
from worker.attempt.retry import retry


def upload(objects: ObjectStore, key: str, path: Path, content_type: str, check: Callable[[], None]) -> None:
    """Upload a large file, with retries.

    Args:
        check: called twice a second; an error that it raises abandons the upload, which ends when the file is removed.
    """
    retry(lambda: _upload(objects, key, path, content_type, check), check)


def _upload(objects: ObjectStore, key: str, path: Path, content_type: str, check: Callable[[], None]) -> None:
    done: Future[None] = Future()

    def run() -> None:
        try:
            objects.put(key, path, content_type=content_type)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001  whatever it was, it is raised where the result is waited for
            done.set_exception(error)

    # Not a pool, whose threads are waited for at exit; this one may be abandoned.
    threading.Thread(target=copy_context().run, args=(run,), name=f"upload-{key}", daemon=True).start()
    while True:
        try:
            return done.result(timeout=0.5)
        except NotYetError:
            check()
