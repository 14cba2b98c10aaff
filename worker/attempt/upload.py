"""Uploads that can be given up."""

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
    """Upload a large file, patiently.

    Args:
        check: called twice a second; what it raises leaves the upload behind, which ends when the file is removed.
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

    # A pool's threads are waited for at exit; this one may be left behind.
    threading.Thread(target=copy_context().run, args=(run,), name=f"upload-{key}", daemon=True).start()
    while True:
        try:
            return done.result(timeout=0.5)
        except NotYetError:
            check()
