"""Logs: every event of a process is one line on stderr, whether we tell it or a library does.

Events are constant names with fields, `log.info("lease_lost", state=...)`. What is bound to the context (the request's
id, the record, the attempt) is a field of every event told within it. No line holds a secret: passwords in URLs and the
secret parts of API keys are taken out of all that is written, and libraries, which tell headers when they are debugged,
tell nothing below "info".
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.core.settings import Settings

OWN = ("service", "worker", "model")
"""Loggers that debugging is about."""

_FRAMEWORK = ("uvicorn", "uvicorn.error", "uvicorn.access", "multiprocessing")
"""Loggers that come with handlers of their own."""

_TALKATIVE = ("botocore", "boto3", "urllib3", "multiprocessing")

_PASSWORD = re.compile(r"(://[^\s/:@\"']*:)[^\s/\"']+@")
_API_KEY = re.compile(r"(pf_[0-9a-f]{16}_)[A-Za-z0-9_-]+")

log = structlog.stdlib.get_logger(__name__)


def configure_logs(settings: Settings) -> None:
    """Write all events of this process, and what ends it or one of its threads, in the form that the settings choose.

    To be called once the libraries have set up their own logging, which is replaced.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    chosen = settings.log_format or ("text" if sys.stderr.isatty() else "json")
    rendering: list[Processor] = [structlog.processors.JSONRenderer()] if chosen == "json" else _text()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, without_secrets],
            foreign_pre_chain=shared,
        )
    )
    _install(handler, logging.getLevelNamesMapping()[settings.log_level.upper()])
    sys.excepthook = _tell_end
    threading.excepthook = _tell_end_of_thread


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
    # Its lines hold queries, and the API tells of every request itself.
    logging.getLogger("uvicorn.access").propagate = False
    logging.captureWarnings(True)


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)


def _text() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), sort_keys=False, pad_event_to=0, repr_native_str=True
    )
    return [on_one_line, renderer]


def on_one_line(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """What the renderer for text would write as it is: it shows values with all that is special in them escaped."""
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    fields["event"] = repr(fields["event"])[1:-1]
    return fields


def without_secrets(_: WrappedLogger, __: str, line: str | MutableMapping[str, Any]) -> str:
    """A line as it may be kept."""
    return _API_KEY.sub(r"\1***", _PASSWORD.sub(r"\1***@", str(line)))


def _tell_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("process_broke", exc_info=(kind, error, trace))


def _tell_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else None
        log.critical("thread_broke", thread=name, exc_info=ended.exc_value)
