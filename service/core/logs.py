"""Configures the logs: every event of a process, its own or a library's, is one line on stderr.

Events are constant names with fields, `log.info("lease_lost", state=...)`. Values bound to the context (the request's
id, the record, the attempt) are fields of every event logged within it. No line contains a secret: passwords in URLs
and the secret parts of API keys are masked, and libraries, which log headers at level "debug", log from "info" on.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from functools import partial
from select import select
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.core.settings import Settings
from service.core.strict_json import to_json, without_nan

OWN = ("service", "worker", "model")
"""Loggers of this project, the only ones that log below "info"."""

PATIENCE = 0.1
"""Seconds that an event waits for a full non-blocking stream before the rest of its line is dropped."""

_FRAMEWORK = ("uvicorn", "uvicorn.error", "uvicorn.access", "multiprocessing")
"""Loggers of libraries that install handlers of their own."""

_TALKATIVE = ("botocore", "boto3", "urllib3", "multiprocessing")

_PASSWORD = re.compile(r"(://[^\s/:@\"']*:)[^\s/\"']+@")
_API_KEY = re.compile(r"(pf_[0-9a-f]{16}_)[A-Za-z0-9_-]+")

log = structlog.stdlib.get_logger(__name__)


def configure_logs(settings: Settings) -> None:
    """Log all events of this process, including uncaught exceptions, in the format that the settings choose.

    Replaces the libraries' own logging, so call it after they have set that up.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    chosen = settings.log_format or ("text" if sys.stderr.isatty() else "json")
    as_json = structlog.processors.JSONRenderer(serializer=_line)
    rendering: list[Processor] = [as_json if chosen == "json" else as_text, without_secrets]
    # Our own events bypass the standard library, which would take most of the time of a line.
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_LineLogger, sys.stderr.fileno()),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=shared,
        )
    )
    _install(handler, level)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _line(event: EventDict, **layout: Any) -> str:
    return to_json(without_nan(event), **layout)


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if _is_ours(each)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(max(level, logging.INFO))
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    for name in _FRAMEWORK:
        theirs = logging.getLogger(name)
        theirs.handlers.clear()
        theirs.setLevel(logging.NOTSET)
        theirs.propagate = True
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its lines contain queries, and the API logs every request itself.
    logging.getLogger("uvicorn.access").propagate = False
    logging.captureWarnings(True)


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)


class _LineLogger:
    """Writes each event in one call without a lock, because a lock could be held while the process forks.

    Only a line that the stream does not accept at once, such as a pipe that is nearly full, is written in parts.
    """

    def __init__(self, stream: int, name: str) -> None:
        self.name = name
        self._stream = stream

    def _write(self, line: str) -> None:
        left = f"{line}\n".encode(errors="backslashreplace")
        with suppress(OSError):  # a failed write must not end the process
            while left:
                try:
                    left = left[os.write(self._stream, left) :]
                except BlockingIOError:
                    if not select([], [self._stream], [], PATIENCE)[1]:
                        return

    debug = info = warning = error = critical = _write


def as_text(_: WrappedLogger, __: str, fields: EventDict) -> str:
    """Format an event as text for people, with special characters escaped.

    structlog's own renderer, with colours and columns, takes ten times as long.
    """
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    event = repr(fields.pop("event"))[1:-1]
    head = f"{fields.pop('timestamp')} [{fields.pop('level'):<8}] {event} [{fields.pop('logger')}]"
    return " ".join([head, *(f"{name}={value!r}" for name, value in fields.items())])


def without_secrets(_: WrappedLogger, __: str, line: str | MutableMapping[str, Any]) -> str:
    """Mask passwords and API keys in a line."""
    return _API_KEY.sub(r"\1***", _PASSWORD.sub(r"\1***@", str(line)))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("process_broke", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else None
        log.critical("thread_broke", thread=name, exc_info=ended.exc_value)
