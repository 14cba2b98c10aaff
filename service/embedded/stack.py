"""Starts the processes of a stack in order, restarts those that die, and stops all of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from service.core.errors import TransientError, UsageError
from service.embedded import servers
from service.embedded.binaries import check_redis, find_rclone, find_redis
from service.embedded.folder import DataFolder, Running
from service.embedded.parent_death import PYTHON
from service.embedded.ports import check_host, claim_port, free_ports, is_loopback, join
from service.embedded.processes import MARK, Child, Command, end_marked

START_SECONDS = 120.0
"""Limit for every server to respond; on a slow disk Redis may take long to load its data."""

LOOK_EVERY = 0.1

LONGEST_PAUSE = 30.0
"""Longest pause in seconds before a process that keeps dying is restarted."""

STEADY_AFTER = 60.0
"""Seconds; a process that ran this long is restarted after the shortest pause."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The user's options.

    Attributes:
        data_dir: folder of the stack's data.
        host: address of API and S3.
        port: port of the API; None for a free one.
        workers: number of worker processes.
        require_keys: require API keys even if only this machine can reach the API.
    """

    data_dir: Path
    host: str = servers.LOOPBACK
    port: int | None = None
    workers: int = 1
    require_keys: bool = False


@dataclass(slots=True)
class _Service:
    """A command that is kept running.

    Attributes:
        child: the running process; None until it is restarted.
        failures: deaths in a row.
        due: time of the restart on the monotonic clock.
    """

    command: Command
    child: Child | None
    failures: int = 0
    due: float = 0.0


class Stack:
    """The processes of one data folder. Children end with the thread that started them: use it in the main thread.

    Args:
        options: the user's options.
        on_note: called with one sentence about each event.

    Raises:
        UsageError: lists every option that cannot be used.
    """

    def __init__(self, options: StackOptions, on_note: Callable[[str], None]) -> None:
        self._options = options
        self._note = on_note
        self._redis, self._rclone = _checked(options)
        self._folder = DataFolder(options.data_dir)
        self._services: list[_Service] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def path(self) -> Path:
        return self._folder.path

    def start(self) -> Running:
        """Start everything and wait until the API is ready.

        Raises:
            UsageError: the port is in use, or the folder was written by a newer Redis.
            TransientError: a process does not start; contains the end of its log.
        """
        folder, host, workers = self._folder, self._options.host, self._options.workers
        check_redis(self._redis, folder.path / "redis")
        if left := end_marked(folder.path):
            self._note(f"killed {left} processes that an earlier run had left behind")
        folder.clear_scratch()
        self._guard = _guard(folder.path)
        credentials = folder.credentials()
        # Each server listens on its port before the next port is chosen.
        redis_port, password = claim_port(servers.LOOPBACK), credentials.redis_password
        self._run([servers.redis_command(self._redis, folder.path / "redis", redis_port, password)])
        self._await(partial(servers.redis_serves, redis_port, password))
        s3_port = claim_port(host)
        self._run([servers.s3_command(self._rclone, folder.path / "objects", host, s3_port, credentials)])
        self._await(partial(servers.accepts, host, s3_port))
        require_keys = self._options.require_keys or not is_loopback(host)
        settings = servers.service_settings(
            folder.path, credentials, redis_port, join(host, s3_port), require_keys=require_keys
        )
        port = claim_port(host, self._options.port)
        self._run([servers.api_command(host, port, settings)])
        metrics_ports = free_ports(servers.LOOPBACK, workers)
        self._run(
            [
                servers.worker_command(number, workers, settings, folder.path / "metrics", metrics_port)
                for number, metrics_port in enumerate(metrics_ports, start=1)
            ]
        )
        metrics = [f"http://{join(servers.LOOPBACK, metrics_port)}/metrics" for metrics_port in metrics_ports]
        running = Running(os.getpid(), f"http://{join(host, port)}", settings, metrics)
        self._await(partial(servers.api_is_ready, running.url))
        folder.announce(running)
        return running

    def supervise(self) -> None:
        """Restart processes that have died, each time after a longer pause, and rotate logs. To be called often."""
        now = time.monotonic()
        for each in self._services:
            if each.child is None:
                if now >= each.due:
                    each.child = self._spawn(each.command)
            elif how := each.child.ended():
                each.child.kill()
                each.failures = 1 if now - each.child.started > STEADY_AFTER else each.failures + 1
                pause = min(LONGEST_PAUSE, 0.25 * 2**each.failures)
                each.due = now + pause
                self._note(f"{each.command.name} {how}; it restarts in {pause:g} s (see {each.child.log})")
                each.child = None
            else:
                each.child.rotate_log()

    def stop(self) -> None:
        """Stop everything: the API, then the workers, which save their work, then S3 and Redis."""
        try:
            for names in (("api",), ("worker",), ("s3",), ("redis",)):
                self._end([each.child for each in self._services if each.child and each.command.name.startswith(names)])
        finally:
            self._services.clear()
            end_marked(self._folder.path)
            if self._guard is not None:
                self._guard.communicate()
            self._folder.close()

    def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            child.terminate()
        for child in children:
            if not child.wait(child.command.patience):
                self._note(f"{child.command.name} did not stop in {child.command.patience:g} s and was killed")
            child.kill()

    def _run(self, commands: Sequence[Command]) -> None:
        self._services += [_Service(command, self._spawn(command)) for command in commands]

    def _spawn(self, command: Command) -> Child:
        return Child(command, self._folder.path, self._folder.logs)

    def _await(self, serves: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not serves():
            children = [each.child for each in self._services if each.child is not None]
            for child in children:
                if how := child.ended():
                    raise TransientError(f"{child.command.name} {how}; the end of its log:\n{child.log_tail()}")
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{children[-1].command.name} does not respond after {START_SECONDS:g} s; see {children[-1].log}"
                )
            time.sleep(LOOK_EVERY)


def _checked(options: StackOptions) -> tuple[Path, Path]:
    """Check all options; returns the programs of Redis and rclone."""
    checks: list[Callable[[], object]] = [
        partial(_check_workers, options.workers),
        partial(_check_address, options.host, options.port),
    ]
    problems: list[str] = []
    programs: list[Path] = []
    for check in [*checks, find_redis, find_rclone]:
        try:
            if isinstance(found := check(), Path):
                programs.append(found)
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems, "the stack cannot start")
    return programs[0], programs[1]


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be at least 1")


def _check_address(host: str, port: int | None) -> None:
    check_host(host)
    claim_port(host, port)


def _guard(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that kills what is left of the stack if this process is killed."""
    return subprocess.Popen(  # noqa: S603 - our own module
        [*PYTHON, "service.embedded.guard"],
        stdin=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, MARK: str(folder)},
        start_new_session=True,
    )
