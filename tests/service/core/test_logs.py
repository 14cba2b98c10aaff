"""What a process of ours writes: one line per event, whoever tells it, and no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.core.strict_json import parse

ROOT = Path(__file__).resolve().parents[3]

API_KEY = "pf_0123456789abcdef_" + "s3cretS3CRET_-" * 3 + "x"

PROGRAM = """
import contextvars, logging, sys, threading, warnings
import structlog
from service.core.logs import configure_logs
from service.core.settings import load_settings

log = structlog.stdlib.get_logger("service.test")
logging.getLogger("uvicorn").addHandler(logging.StreamHandler(sys.stderr))
configure_logs(load_settings())
configure_logs(load_settings())
structlog.contextvars.bind_contextvars(request_id="r1")

def fail():
    raise ValueError("first\\nsecond")

def caught():
    try:
        fail()
    except ValueError:
        log.exception("caught", part="a b")

"""


def told(code: str, **settings: str) -> list[str]:
    """The lines that a process writes to stderr."""
    environment = {f"PAIRFORGE_{name.upper()}": value for name, value in settings.items()}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == ""
    return run.stderr.splitlines()


def events(code: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told(code, log_format="json", **settings)]


def test_an_event_is_a_line_of_json_with_all_that_is_bound() -> None:
    (event,) = events("log.info('lease_lost', record='adp_1', attempt=2)")
    at = datetime.fromisoformat(event.pop("timestamp"))
    assert at.utcoffset() == timedelta(0)
    assert event == {
        "event": "lease_lost",
        "level": "info",
        "logger": "service.test",
        "request_id": "r1",
        "record": "adp_1",
        "attempt": 2,
    }


def test_a_number_that_is_not_finite_is_null() -> None:
    (line,) = told("log.info('measured', loss=float('nan'), curve=[1.5, float('inf')])", log_format="json")
    assert parse(line)["loss"] is None
    assert parse(line)["curve"] == [1.5, None]


def test_a_thread_tells_its_creators_context_where_it_is_given() -> None:
    code = "thread = threading.Thread(target=contextvars.copy_context().run, args=(log.info, 'there'))\nthread.start()"
    (event,) = events(code)
    assert event["request_id"] == "r1"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_exception_is_in_the_line_of_its_event(log_format: str) -> None:
    (line,) = told("caught()", log_format=log_format)
    assert "caught" in line
    assert r"ValueError: first\nsecond" in line
    assert "in fail" in line


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_whoever_tells_it_an_event_is_one_line(log_format: str) -> None:
    tellers = [
        "logging.getLogger('kombu').warning('%s away\\nfor a while', 'the broker')",
        "logging.getLogger('uvicorn.error').error('broken\\napp', exc_info=ValueError('x'))",
        "warnings.warn('two\\nlines')",
        "log.info('named', path='/a\\n\\x1b[31m', nested={'a': ['b\\n']})",
        "log.info('several\\nlines')",
        "threading.Thread(target=fail).start()",
        "fail()",
    ]
    lines = told("\n".join(tellers), log_format=log_format)
    assert len(lines) == len(tellers)
    assert all(line.isprintable() for line in lines)


def test_what_ends_a_process_or_a_thread_is_told() -> None:
    (event,) = events("fail()")
    assert (event["event"], event["level"]) == ("process_broke", "critical")
    assert "ValueError: first\nsecond" in event["exception"]
    (event,) = events("threading.Thread(target=fail, name='lease').start()")
    assert (event["event"], event["thread"]) == ("thread_broke", "lease")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_line_holds_a_password_or_a_key(log_format: str) -> None:
    urls = ["redis://:pass1word@host:1/0", "http://user:p@ss1word@host/x", "amqp://u:pass1word@h//"]
    code = f"""
for url in {urls}:
    log.info("said", url=url, nested=[url])
    logging.getLogger("kombu").warning("cannot connect to %s", url)
    try:
        raise OSError(url)
    except OSError as error:
        log.exception("failed", error=repr(error))
log.info("asked", path="/v1/jobs/{API_KEY}", part="{API_KEY[:40]}")
"""
    lines = told(code, log_format=log_format)
    assert len(lines) == 3 * len(urls) + 1
    assert not [line for line in lines if "ss1word" in line or "s3cret" in line]
    assert "pf_0123456789abcdef_***" in lines[-1]
    assert "redis://:***@host:1/0" in lines[0]


def test_debugging_is_about_our_own_events() -> None:
    code = """
log.debug("own")
for name in ("botocore.auth", "kombu", "uvicorn", "celery"):
    logging.getLogger(name).debug("Authorization: secret")
"""
    assert [event["event"] for event in events(code, log_level="debug")] == ["own"]
    assert events(code) == []


def test_what_is_less_important_than_asked_for_is_not_told() -> None:
    code = "log.info('a')\nlog.warning('b')\nlogging.getLogger('celery').info('c')"
    assert [event["event"] for event in events(code, log_level="warning")] == ["b"]


def test_uvicorns_own_line_per_request_is_not_told() -> None:
    assert events("logging.getLogger('uvicorn.access').info('GET /?token=secret')") == []


def test_without_a_terminal_the_form_is_json() -> None:
    (line,) = told("log.info('a')")
    assert json.loads(line)["event"] == "a"


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [sys.executable, "-c", f"{PROGRAM}log.info('a')\nprint('went on')"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert run.stdout == b"went on\n"


@pytest.mark.parametrize("blocking", [True, False])
def test_an_event_larger_than_a_pipe_is_written_whole(*, blocking: bool) -> None:
    code = f"import os\nos.set_blocking(2, {blocking})\nlog.info('large', text='x' * 1_000_000)\nlog.info('next')"
    large, following = events(code)
    assert len(large["text"]) == 1_000_000
    assert following["event"] == "next"


def test_nobody_reading_a_log_that_does_not_block_ends_nothing() -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        run = subprocess.run(
            [sys.executable, "-c", f"{PROGRAM}log.info('x' * 1_000_000)\nlog.info('a')\nprint('went on')"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=writing,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert run.stdout == b"went on\n"
